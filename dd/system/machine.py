"""Settings of a process and its threads that make work on a CPU faster. Imports torch only where it is needed."""

from __future__ import annotations

import os
import sys

# Read by glibc and the OpenMP runtime when a process starts.
_WANTED = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "8589934592",
    "MALLOC_TOP_PAD_": "268435456",
    # Threads look for work so many times before they sleep. If they sleep at once (OMP_WAIT_POLICY=passive), two are as
    # slow as one (docs/findings.md); to look without end would starve other processes.
    "GOMP_SPINCOUNT": "20000",
}


def tune_cpu() -> None:
    """Keep glibc from giving large blocks back to the kernel at every step (system time 36 % -> 0 on two cores).

    The settings are read when a process starts, so this re-executes the present command once, before anything else
    was done. Values that the user has set win.
    """
    missing = {key: value for key, value in _WANTED.items() if key not in os.environ}
    if missing:
        os.environ.update(missing)
        os.execv(sys.executable, sys.orig_argv)


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
