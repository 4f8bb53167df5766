"""Several processes for a stage, by one setting that `dvc repro` respects.

DD_LAUNCH says what `accelerate launch` is given: a number of processes, or its own options.

    DD_LAUNCH=8 dvc repro evaluate@NAME
    DD_LAUNCH="--config_file two-nodes.yaml" dvc repro distill@NAME

The environment is no dependency of a stage: whatever it says, the same outputs count as up to date.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from pathlib import Path

from dd.errors import DDError

SETTING = "DD_LAUNCH"
# Port 0 is any free one: two launches on a machine would else meet at 29500.
_ANY_PORT = ("--main_process_port", "0")
_PORT_OPTIONS = ("--main_process_port", "--config_file", "--num_machines", "--machine_rank")  # may name a port
# Without --multi_gpu, accelerate starts one process where there is no accelerator.
_PLAIN: tuple[str, ...] = ("--multi_gpu", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no")
_PLAIN += (*_ANY_PORT, "--num_processes")


def options() -> list[str]:
    """What DD_LAUNCH gives to `accelerate launch`; nothing where one process is enough. Raises DDError."""
    text = os.environ.get(SETTING, "").strip()
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise DDError(f"{SETTING}: expected a number of processes or options, got {text!r} ({error})") from None
    if len(words) == 1 and not words[0].startswith("-"):
        if not words[0].isdigit() or not int(words[0]):
            raise DDError(
                f"{SETTING}: expected a number of processes, or options of `accelerate launch`, got {text!r}; "
                "for example 8, or --config_file NAME"
            )
        return [] if int(words[0]) == 1 else [*_PLAIN, words[0]]
    given = [word.split("=")[0].replace("-", "_") for word in words]
    own = any(option.replace("-", "_") in given for option in _PORT_OPTIONS)
    return words if own or not words else [*_ANY_PORT, *words]


def processes() -> int:
    """How many processes DD_LAUNCH asks for, as far as that can be read from it; 1 without it. Raises DDError."""
    given = options()
    for flag in ("--num_processes", "--num-processes"):
        if flag in given[:-1]:
            return int(given[given.index(flag) + 1])
    if "--config_file" in given[:-1]:
        try:
            text = Path(given[given.index("--config_file") + 1]).read_text(encoding="utf-8")
        except OSError as error:
            raise DDError(f"{SETTING}: cannot read its --config_file ({error.strerror}); check the path") from None
        found = re.search(r"(?m)^num_processes:\s*(\d+)\s*$", text)
        return int(found[1]) if found else 1
    return 1


def relaunch(arguments: argparse.Namespace) -> None:
    """Turn this process into `accelerate launch` of the same command, where DD_LAUNCH asks for it.

    Not in the processes that it started, and not where Dask spreads the work.
    """
    spread = any(vars(arguments).get(name) for name in ("dask", "dask_workers"))
    spread = spread or any(os.environ.get(name) for name in ("DD_DASK_WORKERS", "DD_SHARD_ENGINE"))
    module = getattr(sys.modules["__main__"].__spec__, "name", None)
    if spread or "LOCAL_RANK" in os.environ or module is None or not (given := options()):
        return
    command = [sys.executable, "-m", "accelerate.commands.launch", *given, "-m", module, *sys.argv[1:]]
    os.execv(sys.executable, command)


def by_hand() -> bool:
    """Was this stage started without DVC? `dvc repro` would then remove its outputs and make them again."""
    return "DVC_STAGE" not in os.environ
