"""`dd-cli run`, `dd-cli sweep` and `dd-cli ui`: handed on to the pipeline, which the library itself never imports."""

import os
import sys
from importlib.util import find_spec

import typer

from dd.errors import DDError, install

PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def run(context: typer.Context) -> None:
    """Run experiments (all, or the named ones and what they need) with a live table of their stages."""
    hand_on("pipeline.terminal.run", context.args)


def sweep(context: typer.Context) -> None:
    """Run a grid over the parameters of one experiment as DVC experiments, and show their results in one table."""
    hand_on("pipeline.terminal.run_sweep", context.args)


def ui(context: typer.Context) -> None:
    """Start the project's own Prefect server and serve the flows, to start and watch runs in the browser."""
    hand_on("pipeline.servers.ui", context.args)


def register(app: typer.Typer) -> None:
    """Add the three commands to dd-cli; all their options belong to the module that they start."""
    app.command("run", context_settings=PASS_ON)(run)
    app.command("sweep", context_settings=PASS_ON)(sweep)
    app.command("ui", context_settings=PASS_ON)(ui)


def hand_on(module: str, arguments: list[str]) -> None:
    """Become `python -m MODULE ...`: the same process, so that signals and the exit status need no relay.

    The pipeline is part of a checkout, not of the installed package. Raises DDError where there is none.
    """
    from dd.config import project_root

    root = project_root()
    if find_spec("pipeline") is None and not (root / "pipeline").is_dir():
        raise DDError(f"expected a checkout of this project with pipeline/, found none in {root}: run it from there")
    for name in ("dvc", "prefect"):
        if find_spec(name) is None:
            raise DDError(f"expected {name}, found none: {install('pipeline')}")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])
