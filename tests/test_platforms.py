"""What other systems, file systems and settings of git make of the files; the library without what only Linux has."""

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from dd.system.names import DEVICES
from tests.helpers.paths import ROOT

# After torch and the like are loaded: no fcntl and its kind, no fork, no /proc, no C library by the name of None.
ELSEWHERE = """
import builtins, ctypes, os, sys
import torch, numpy, safetensors.torch, yaml, pydantic, PIL.Image, pyarrow.parquet, platform, uuid, tqdm
for name in ("fcntl", "resource", "pwd", "grp", "termios", "prctl"):
    sys.modules[name] = None
for name in ("fork", "forkpty", "sched_getaffinity", "waitid", "getuid", "killpg", "setsid", "getloadavg"):
    if hasattr(os, name):
        delattr(os, name)
opened, library = builtins.open, ctypes.CDLL
def no_proc(file, *args, **kwargs):
    if str(file).startswith(("/proc", "/sys")):
        raise FileNotFoundError(2, "No such file or directory", str(file))
    return opened(file, *args, **kwargs)
def no_libc(name, *args, **kwargs):
    if name is None:
        raise TypeError("argument of type 'NoneType' is not iterable")
    return library(name, *args, **kwargs)
builtins.open, ctypes.CDLL = no_proc, no_libc
import io
io.open = no_proc
import dd
images = dd.load("llamagen-fashion").sample(classes=["sneaker"], steps=1)
assert images.shape == (1, 28, 28, 3) and images.any()
import dd.trajectories.worker, dd.distillation.training, dd.evaluation.measure, dd.report.table, dd.cli.main
print("drawn")
"""


def tracked() -> list[str]:
    out = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in out.split("\0") if name]


def test_every_system_can_hold_the_files():
    parts = {part for name in tracked() for part in Path(name).parts}
    assert not [part for part in parts if re.search(r'[<>:"\\|?*\x00-\x1f]', part) or part.endswith((" ", "."))]
    assert not [part for part in parts if DEVICES.fullmatch(part.split(".")[0])]
    assert max(map(len, tracked())) < 150  # below the 260 of Windows, in a folder of the user's
    assert not [name for name, count in Counter(name.lower() for name in tracked()).items() if count > 1]


def test_a_clone_with_windows_line_endings_changes_no_byte(tmp_path: Path):
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull}
    command = [
        "git",
        "clone",
        "-q",
        "-c",
        "core.autocrlf=true",
        "-c",
        "core.eol=crlf",
        str(ROOT),
        str(tmp_path / "clone"),
    ]
    subprocess.run(command, check=True, env=environment, timeout=120)
    clone = tmp_path / "clone"
    if not (clone / ".gitattributes").is_file():
        pytest.skip("the commit that is cloned has no .gitattributes yet")
    status = subprocess.run(["git", "status", "--porcelain"], cwd=clone, capture_output=True, text=True, check=True)
    assert status.stdout == ""
    texts = [name for name in tracked() if name.endswith((".py", ".yaml", ".json", ".lock", ".md"))]
    assert not [name for name in texts if (clone / name).is_file() and b"\r\n" in (clone / name).read_bytes()]


def test_the_library_draws_without_what_only_linux_has():
    done = subprocess.run([sys.executable, "-c", ELSEWHERE], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.stdout == "drawn\n", done.stderr[-3000:]
