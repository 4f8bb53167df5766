"""One stage through `dvc repro -s`: ran, restored, unchanged or failed, and why."""

import contextlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from pipeline.graph import Plan, Stage
from pipeline.processes import accelerator, process

Kind = Literal["ran", "restored", "unchanged", "failed", "skipped"]
Line = Callable[[str], None]
Progress = Callable[[dict[str, Any]], None]  # gets how far a stage is (dd/system/progress.py)

DVC = (sys.executable, "-m", "dvc", "--wait-for-lock")
SCRATCH = Path(".dvc", "tmp", "dd")  # ignored by git and dvc; one per working tree, so its locks are as well
LOCK_PAUSE, LOCK_PATIENCE = 5.0, 3600.0  # seconds between tries, seconds in all, while another process has the outputs
DOWNLOAD_PAUSES = (2.0, 10.0, 30.0)  # seconds before each new try of a stage that ended with TEMPORARY
TEMPORARY = 75  # EX_TEMPFAIL of sysexits.h: what a stage exits with when a later try may work (a broken download)

_BUSY = re.compile(r"is busy, it is being blocked by|Unable to acquire lock")
_HINT = re.compile(  # DVC's advice about git, six lines after every stage
    r"To track the changes with git|To enable auto staging|\s+git add |\s+dvc config core\.autostage|Use `dvc push`"
)
_EXIT = re.compile(r"exited with (-?\d+)")
_MARKS: tuple[tuple[Kind, str], ...] = (
    ("ran", "Running stage '{name}'"),
    ("restored", "Stage '{name}' is cached - skipping run"),
    ("unchanged", "Stage '{name}' didn't change, skipping"),
    ("unchanged", "'{name}' didn't change, skipping"),
)


@dataclass(frozen=True)
class Options:
    """How a run treats its stages: `accelerator_limit` of them at once on the accelerator, `dask_workers` for shards.

    `engine` names the function that makes the shards (`module:function`, see dask_shards.py); empty: the stage does.
    """

    force: bool = False
    pull: bool = False
    accelerator_limit: int = 1
    dask_workers: int = 0
    engine: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of a stage: `message` is one line for a person; `seconds` of wall time with all waits."""

    stage: str
    kind: Kind
    message: str
    seconds: float

    @property
    def ok(self) -> bool:
        return self.kind not in ("failed", "skipped")


@dataclass
class _Output:
    """What a `dvc repro` said, as far as it decides the outcome."""

    name: str
    kind: Kind | None = None
    last: str = ""
    error: str = ""
    busy: bool = False
    marks: dict[str, Kind] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.marks = {text.format(name=self.name): kind for kind, text in _MARKS}

    def add(self, line: str) -> None:
        for text, kind in self.marks.items():
            if line.startswith(text):
                self.kind = kind
                return
        self.busy = self.busy or _BUSY.search(line) is not None
        if line.startswith("ERROR:"):
            self.error = self.error or line.removeprefix("ERROR:").strip()
        elif not self.error and not line.startswith("> "):
            self.last = line.strip()


def run(root: Path, stage: Stage, options: Options, line: Line, progress: Progress | None = None) -> Outcome:
    """Bring one stage up to date; its needs must be already.

    `line` gets each line of output, `progress` how far the stage is (dd/system/progress.py) whenever that changes. A
    stage that waits for DVC's locks, or says that its failure is temporary, is tried again; any other failure is final.

    Raises process.StoppedError when the run is stopped.
    """
    start = time.monotonic()
    pauses = iter(DOWNLOAD_PAUSES)
    missing = not all((root / out).exists() for out in stage.outs)
    while True:
        output, status = _once(root, stage, options, line, progress)
        seconds = time.monotonic() - start
        if status == 0:
            kind = output.kind or "unchanged"
            if kind == "unchanged" and missing:
                kind = "restored"  # DVC calls a stage unchanged whose outputs it has just pulled
            return Outcome(stage.name, kind, _sentence(kind, seconds), seconds)
        if output.busy and seconds < LOCK_PATIENCE:
            pause, why = LOCK_PAUSE, "another process works on its files"
        elif _exit_status(output) == TEMPORARY and (pause := next(pauses, 0.0)):
            why = f"temporary failure: {output.last}"
        else:
            return Outcome(stage.name, "failed", _reason(stage, output, status), seconds)
        line(f"{stage.name}: {why}; next try in {pause:.0f} s")
        if process.stopping.wait(pause):
            raise process.StoppedError(f"stopped: {stage.name}")


def unchanged(root: Path, plan: Plan, line: Line) -> frozenset[str]:
    """The stages that DVC finds up to date, with everything they need, in one call for the whole plan.

    Only saves time: a stage that is not in the answer is asked about on its own, so a failure here means none.
    """
    texts: list[str] = []
    if process.run([*DVC, "status", "--json", *plan], cwd=root, line=texts.append) != 0:
        line("no quick answer from `dvc status`; each stage is asked for itself")
        return frozenset()
    try:
        changed = set(json.loads(next(text for text in reversed(texts) if text.startswith("{"))))
    except (StopIteration, ValueError):
        return frozenset()
    fresh: set[str] = set()
    for name, stage in plan.items():  # in order: needs come first
        if name not in changed and fresh.issuperset(stage.needs):
            fresh.add(name)
    return frozenset(fresh)


def quick_name(plan: Plan) -> str:
    """What a run calls its first step: `code`."""
    return ", ".join(dict.fromkeys(stage.group for stage in plan.values()))


def run_quick(root: Path, plan: Plan, line: Line) -> Outcome:
    """The stages of a plan, which need no other, in one DVC command. Raises process.StoppedError."""
    start = time.monotonic()
    files = [root / out for stage in plan.values() for out in stage.outs]
    before = [_content(file) for file in files]
    output = _Output(quick_name(plan))

    def each(text: str) -> None:
        output.add(text)
        if not _HINT.match(text):
            line(text)

    status = dvc(root, [*DVC, "repro", "-s", *plan], output.name, None, each)
    seconds = time.monotonic() - start
    if status:
        return Outcome(output.name, "failed", f"{output.name} failed: {output.error or output.last}", seconds)
    changed = sum(old != _content(file) for old, file in zip(before, files, strict=True))
    said = f"{changed} of {len(files)} files changed" if changed else "nothing changed"
    return Outcome(output.name, "ran" if changed else "unchanged", f"{said} in {seconds:.1f} s", seconds)


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def would_run(plan: Plan, fresh: Collection[str], changed: Collection[str]) -> list[str]:
    """The stages that are not `fresh`, or read one of the `changed` parameters, and all that need one of them."""
    found: list[str] = []
    for name, stage in plan.items():  # in order: needs come first
        read = any(key == param or key.startswith(f"{param}.") for key in changed for param in stage.params)
        if name not in fresh or read or any(need in found for need in stage.needs):
            found.append(name)
    return found


def settled(stage: Stage) -> Outcome:
    """The outcome of a stage that `unchanged` has named."""
    return Outcome(stage.name, "unchanged", _sentence("unchanged", 0.0), 0.0)


def skipped(stage: Stage, missing: Sequence[str]) -> Outcome:
    """The outcome of a stage whose needs did not come about."""
    return Outcome(stage.name, "skipped", f"{stage.name} skipped: it needs {', '.join(missing)}", 0.0)


def summary(outcomes: Sequence[Outcome], what: str = "stages") -> str:
    """`9 stages: 2 ran, 7 unchanged`, and the first failure if there is one."""
    counts = {kind: sum(outcome.kind == kind for outcome in outcomes) for kind in get_args(Kind)}
    text = f"{len(outcomes)} {what}: {', '.join(f'{number} {kind}' for kind, number in counts.items() if number)}"
    first = next((outcome.message for outcome in outcomes if outcome.kind == "failed"), None)
    return f"{text}; {first}" if first else text


def scratch(root: Path) -> Path:
    """Where the runs of this working tree keep their locks and progress files."""
    folder = root / SCRATCH
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _once(root: Path, stage: Stage, options: Options, line: Line, progress: Progress | None) -> tuple[_Output, int]:
    output = _Output(stage.name)

    def each(text: str) -> None:
        output.add(text)
        if not _HINT.match(text):
            line(text)

    words = [*DVC, "repro", "-s", *(["--force"] if options.force else []), *(["--pull"] if options.pull else [])]
    places = options.accelerator_limit if stage.accelerator else None
    return output, dvc(root, [*words, stage.name], stage.name, places, each, progress, _environment(options))


def dvc(
    root: Path,
    command: Sequence[str],
    name: str,
    places: int | None,
    line: Line,
    progress: Progress | None = None,
    env: Mapping[str, str] | None = None,
) -> int:
    """Exit status of a DVC command that runs stages, supervised, its progress watched; holds one of `places` if any.

    Raises process.StoppedError when the run is stopped.
    """
    file = scratch(root) / f"progress-{os.getpid()}-{name.replace(os.sep, '-')}.json"
    look = _watch(file, progress) if progress else None
    with contextlib.ExitStack() as stack:
        stack.callback(file.unlink, missing_ok=True)
        hold = [] if places is None else [stack.enter_context(accelerator.place(scratch(root), places, name, line))]
        more = {"DD_PROGRESS_FILE": str(file), "DVC_NO_ANALYTICS": "1", **(env or {})}
        status = process.run(command, cwd=root, line=line, tick=look, env=more, hold=hold)
        if look:
            look()
    return status


def _environment(options: Options) -> Mapping[str, str]:
    wanted = {"DD_DASK_WORKERS": str(options.dask_workers or ""), "DD_SHARD_ENGINE": options.engine}
    return {key: value for key, value in wanted.items() if value}


def _watch(file: Path, progress: Progress) -> Callable[[], None]:
    """A function that hands on the progress file's content whenever it is new."""
    seen: dict[str, Any] = {}

    def look() -> None:
        with contextlib.suppress(OSError, ValueError):
            state = json.loads(file.read_text())
            if isinstance(state, dict) and state != seen:
                seen.clear()
                seen.update(state)
                progress(state)

    return look


def _sentence(kind: Kind, seconds: float) -> str:
    """One line per outcome."""
    if kind == "unchanged":
        return "unchanged: DVC found nothing to do"
    return f"{'ran' if kind == 'ran' else 'restored from the cache'} in {seconds:.1f} s"


def _exit_status(output: _Output) -> int | None:
    found = _EXIT.search(output.error)
    return int(found[1]) if found else None


def _reason(stage: Stage, output: _Output, status: int) -> str:
    """`distill@x failed: its last words (exited with 1)`, or what DVC said if the stage never ran."""
    code = _exit_status(output)
    if code is not None and output.kind == "ran":
        ended = f"ended by signal {-code}" if code < 0 else f"exited with {code}"
        return f"{stage.name} failed: {output.last or 'it said nothing'} ({ended})"
    said = output.error.removeprefix(f"failed to reproduce '{stage.name}':").strip()
    return f"{stage.name} failed: {said or output.last or f'dvc exited with {status}'}"
