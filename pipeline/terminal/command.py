"""What the commands of a terminal share: a flow in this process, exit statuses, one-line errors."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from dd.errors import DDError
from dd.system.command import INTERRUPTED, WRONG
from dd.system.files import explained
from pipeline.servers import mark_crashed, server

FAILED = 1  # exit status

# Options of both commands.
UseServer = Annotated[
    bool, typer.Option("--server/--no-server", help="Show the run in a running Prefect server, if there is one.")
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show the output of the stages.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show only results and errors.")]


def new_app() -> typer.Typer:
    """A command line like that of dd-cli."""
    return typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def quiet(wanted: bool) -> bool:
    """Whether to show results and errors alone; handed on to the stages."""
    if wanted:
        os.environ["DD_QUIET"] = "1"
    return bool(os.environ.get("DD_QUIET"))


def end(work: Callable[[Console], tuple[bool, str]]) -> NoReturn:
    """Do the work, which returns whether all went well and its last line, and leave with the status that says so.

    A DDError is one line and status 2; Ctrl-C and SIGTERM, which the work sees as KeyboardInterrupt, are status 130.
    """
    console = Console()
    signal.signal(signal.SIGTERM, interrupt)
    try:
        with explained():
            ok, text = work(console)
    except DDError as error:
        Console(stderr=True).print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(WRONG) from None
    except KeyboardInterrupt:
        console.print("stopped; finished shards and checkpoints are kept, the same command goes on from them")
        raise typer.Exit(INTERRUPTED) from None
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(0 if ok else FAILED)


def flow(root: Path, api: str, name: str, **parameters: Any) -> tuple[bool, str]:
    """Run a flow of flows.py in this process, reported to the server at `api`: did it end well, its message."""
    os.environ.update(server.settings(root, api))
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "INFO")  # for the server; here the table shows the run
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "WARNING")
    import prefect  # it reads its settings when it is first imported
    from prefect.exceptions import TerminationSignal
    from prefect.flow_engine import run_flow

    from pipeline import flows

    if warning := server.check_version(api, prefect.__version__):
        Console(stderr=True).print(f"warning: {warning}", markup=False, highlight=False, soft_wrap=True)
    try:
        made = _flow_run(api, name, parameters)
        state: Any = run_flow(getattr(flows, name), flow_run=made, parameters=parameters, return_type="state")
    except TerminationSignal:
        raise KeyboardInterrupt from None
    if state.is_cancelled():
        raise KeyboardInterrupt
    return state.is_completed(), state.message or state.name or ""


def _flow_run(api: str, name: str, parameters: dict[str, Any]) -> Any:
    """A run of the deployment that `dd-cli ui` offers, so that the browser can cancel it; None where there is none.

    It is made as Pending: the runner takes Scheduled ones only.
    """
    from prefect.client.schemas.objects import FlowRun

    wanted = {"deployments": {"name": {"any_": [server.DEPLOYMENTS[name]]}}, "flows": {"name": {"any_": [name]}}}
    found = mark_crashed.post(api, "deployments/filter", wanted)
    if not found:
        return None
    body = {"parameters": parameters, "state": {"type": "PENDING"}, "tags": [mark_crashed.process_tag(os.getpid())]}
    return FlowRun.model_validate(mark_crashed.post(api, f"deployments/{found[0]['id']}/create_flow_run", body))


def interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """A handler for signals that mean the same as Ctrl-C."""
    raise KeyboardInterrupt
