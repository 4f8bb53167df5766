"""Settings of a process that make work on a CPU faster, and what the CPU is. Imports torch only where it is needed."""

from __future__ import annotations

import ctypes
import logging
import math
import os
import platform
from functools import cache
from pathlib import Path

log = logging.getLogger(__name__)

# Parameters of glibc's mallopt (malloc.h), the environment variable with the same meaning, and the value wanted here.
_MALLOC = (
    (-3, "MALLOC_MMAP_THRESHOLD_", 1 << 30),  # blocks below 1 GiB come from the heap, not from a mapping of their own
    (-1, "MALLOC_TRIM_THRESHOLD_", -1),  # the heap does not shrink
    (-2, "MALLOC_TOP_PAD_", 1 << 28),  # it grows by 256 MiB at once
)


@cache
def tune_process() -> None:
    """Keep glibc from giving large blocks back to the kernel at every step, and compute on the cores that are there.

    Every freed mapping is zeroed again, page by page, when it comes back: a third of the time of decoding images of
    256 x 256 on two cores. For entry points (stages, `dd.load`, benches); values that the user has set win.
    """
    _tune_malloc()
    _tune_threads()
    if old := old_cpu():
        log.warning(old)


def _tune_malloc() -> None:
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc
        return
    if platform.libc_ver()[0] == "glibc":
        for parameter, variable, value in _MALLOC:
            if variable not in os.environ:
                mallopt(parameter, value)


def _tune_threads() -> None:
    """A container's quota may be less than its cores: more threads than that only wait for each other.

    torch itself keeps to OMP_NUM_THREADS, and to the cores that `taskset` leaves.
    """
    import torch

    if not any(name in os.environ for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")):
        torch.set_num_threads(min(torch.get_num_threads(), available_cores()))


def available_cores() -> int:
    """Cores that this process may use at a time: by affinity (`taskset`), and by the quota of its control group."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, cpu_quota())))


def cpu_quota(system: Path = Path("/")) -> float:
    """Cores' worth of time that the control groups of this process have (docker --cpus), infinite without a limit.

    system: where /proc and /sys are.
    """
    groups = system / "sys/fs/cgroup"
    quotas = [math.inf]
    for line in _read(system / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = groups if not controllers else next((p for p in groups.glob("*") if _is_cpu(p.name)), groups / "cpu")
        place = top / path.lstrip("/")
        for folder in (place, *place.parents):  # a parent's limit holds too
            quotas.append(_quota(folder))
            if folder == top:
                break
    return min(quotas)


def _is_cpu(name: str) -> bool:
    return "cpu" in name.split(",")


def _quota(folder: Path) -> float:
    """Of one control group, version 2 or 1."""
    quota, period = [*_read(folder / "cpu.max").split(), "", ""][:2]
    if not quota:
        quota, period = (_read(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
    try:
        cores = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):  # "max", or no such file
        return math.inf
    return cores if cores > 0 else math.inf


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def one_thread(device: str = "cpu") -> None:
    """Let the calling thread compute alone. To be called by every thread beside the main one, and by shard makers.

    Each thread that runs a parallel operation gets a team of its own. Once the teams have more threads than the
    machine has cores, the OpenMP runtime lets all of them sleep between operations, and two cores are as slow as one
    (a training step took 1.75 times as long). Shards, moreover, must not depend on the number of threads: sums of
    several round differently. On an accelerator the host's threads do not matter.
    """
    import torch

    if device == "cpu":
        torch.set_num_threads(1)


def processor() -> str:
    """The CPU's name."""
    for line in _read(Path("/proc/cpuinfo")).splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def instructions() -> str:
    """The widest instructions that torch uses here, e.g. `AVX2` or `AVX512, bf16, AMX`."""
    import torch

    widest = torch.backends.cpu.get_cpu_capability()
    if "AVX512" not in widest:
        return widest
    more = {"bf16": torch.cpu._is_avx512_bf16_supported, "AMX": torch.cpu._is_amx_tile_supported}
    return ", ".join([widest, *(name for name, supported in more.items() if supported())])


def describe(device: str = "cpu") -> str:
    """The accelerator's name, or the CPU's with its instructions."""
    import torch

    return torch.cuda.get_device_name(device) if device.startswith("cuda") else f"{processor()}, {instructions()}"


def old_cpu() -> str | None:
    """What is to be said where an x86 CPU has no AVX2, else None."""
    import torch

    if platform.machine() not in ("x86_64", "AMD64") or torch.backends.cpu.get_cpu_capability() != "DEFAULT":
        return None
    return (
        f"this CPU ({processor()}) has no AVX2, which the figures of README assume: the same results, several times "
        "slower; x86 CPUs made since 2015 have it"
    )
