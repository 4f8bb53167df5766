"""Which device a stage computes on. An experiment that states `device: cuda` never falls back to the CPU."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Literal

from dd.errors import DDError

DeviceName = Literal["auto", "cpu", "cuda"]

# The oldest Linux driver that runs builds for a major version of CUDA (NVIDIA's release notes, minor-version
# compatibility).
OLDEST_DRIVER = {"11": "450.80.02", "12": "525.60.13", "13": "580.65.06"}


def choose_device(wanted: DeviceName, who: str) -> str:
    """The device to compute on, "cuda" or "cpu".

    auto: the accelerator where there is a working one. who: begins the error's text.

    Raises DDError, with the reason, if CUDA is wanted and does not work.
    """
    if wanted == "cpu":
        return "cpu"
    problem = cuda_problem()
    if problem is None:
        return "cuda"
    if wanted == "cuda":
        raise DDError(f"{who}: expected a CUDA device (device: cuda), {problem}; or set device: auto to use the CPU")
    return "cpu"


def cuda_problem() -> str | None:
    """Why CUDA does not work here and what to do, in one line; None where it works."""
    import warnings

    import torch

    build = torch.version.cuda
    if build is None:
        return f"got torch {torch.__version__} without CUDA: install a CUDA build of torch"
    with warnings.catch_warnings():  # the driver's complaint comes as a warning; it is in the text below
        warnings.simplefilter("ignore")
        available = torch.cuda.is_available()
    if available:
        try:
            torch.zeros(1, device="cuda").add_(1).item()
        except RuntimeError as error:  # a card of an architecture that this build has no kernels for, or one in use
            return f"got '{str(error).splitlines()[0]}' from the first operation: see 'dd-cli doctor'"
        return None
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return "CUDA_VISIBLE_DEVICES is empty: unset it or name a card"
    driver = driver_version()
    if driver is None:
        return "found no NVIDIA driver (nvidia-smi does not answer): run on a machine with a GPU"
    oldest = oldest_driver(build)
    if oldest and _numbers(driver) < _numbers(oldest):
        return f"driver {driver} is too old for torch's CUDA {build}: expected {oldest} or later, update the driver"
    return f"driver {driver} answers, torch {torch.__version__} (CUDA {build}) finds no card: see 'dd-cli doctor'"


def device_name(device: str) -> str:
    """The card's name, or CPU: what a measured rate is recorded with."""
    import torch

    return torch.cuda.get_device_name(device) if device.startswith("cuda") and torch.cuda.is_available() else "CPU"


def card_memory() -> float | None:
    """Bytes of the smallest card that this process sees; None without a working one."""
    import torch

    if not torch.cuda.is_available():
        return None
    return min(torch.cuda.get_device_properties(n).total_memory for n in range(torch.cuda.device_count()))


def oldest_driver(build: str | None) -> str | None:
    """The oldest driver for a CUDA build such as "12.8"; None if unknown."""
    return OLDEST_DRIVER.get((build or "").split(".")[0])


def driver_version() -> str | None:
    """The NVIDIA driver's version, or None."""
    found = nvidia_smi("driver_version")
    return found[0] if found else None


def nvidia_smi(query: str) -> list[str]:
    """One line a card of what nvidia-smi says; empty where it does not answer."""
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
