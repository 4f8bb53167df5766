"""Settings of a process: the allocator keeps large blocks, threads fit the cores, the CPU is named."""

import math
import os
import subprocess
import sys

import pytest
import torch

from dd.system import machine
from tests.helpers.paths import ROOT

FAULTS = """
import resource, torch
from dd.system.machine import tune_process

def faults():  # 64 MiB: the kernel maps and zeroes it at every turn, unless the heap keeps it
    for turn in range(13):
        if turn == 3:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.zeros(1 << 24).add_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

untuned = faults()
tune_process()
print(untuned, faults(), torch.get_num_threads())
"""


def run(program: str, command: tuple[str, ...] = (sys.executable, "-c"), **environment: str) -> str:
    kept = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "PYTHONPATH")}
    settings = kept | {"PYTHONPATH": str(ROOT)} | environment
    done = subprocess.run([*command, program], env=settings, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.skipif(machine.platform.libc_ver()[0] != "glibc", reason="the allocator of glibc")
def test_large_blocks_are_kept_and_threads_fit_the_affinity():
    one_core = ("taskset", "-c", str(min(os.sched_getaffinity(0))), sys.executable, "-c")
    untuned, tuned, threads = map(int, run(FAULTS, one_core).split())
    assert tuned < 100 < untuned
    assert threads == 1


def test_the_users_malloc_settings_win(monkeypatch):
    if machine.platform.libc_ver()[0] != "glibc":
        pytest.skip("the allocator of glibc")
    called = []

    class Library:
        def mallopt(self, *arguments):
            called.append(arguments[0])

    monkeypatch.setattr(machine.ctypes, "CDLL", lambda _: Library())
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1")
    machine._tune_malloc()
    assert called == [-3, -2]


def test_threads_fit_the_quota_unless_the_user_says_otherwise(monkeypatch):
    chosen: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(machine, "cpu_quota", lambda: 1.5)
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    machine._tune_threads()
    assert chosen == []
    monkeypatch.delenv("OMP_NUM_THREADS")
    machine._tune_threads()
    monkeypatch.setattr(machine, "cpu_quota", lambda: math.inf)
    machine._tune_threads()
    assert chosen == [2, 4]


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, math.inf),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "max 100000\n"}, math.inf),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/cpu.max": "50000 100000\n",
                "sys/fs/cgroup/a/b/cpu.max": "400000 100000\n",
            },
            0.5,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/m\n2:cpu,cpuacct:/docker/x\n0::/\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_period_us": "100000\n",
            },
            3.0,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            math.inf,
        ),
    ],
)
def test_quota_of_control_groups(tmp_path, files, cores):
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert machine.cpu_quota(tmp_path) == cores


def test_one_core_at_least(monkeypatch):
    monkeypatch.setattr(machine, "cpu_quota", lambda: 0.1)
    assert machine.available_cores() == 1


@pytest.mark.skipif(machine.platform.machine() != "x86_64", reason="instructions of x86")
def test_a_cpu_without_avx2_is_told_in_one_line():
    program = "import logging; logging.basicConfig(format='%(message)s')\n"
    program += (
        "from dd.system import machine; machine.tune_process(); print(machine.old_cpu()); print(machine.describe())"
    )
    line, cpu = run(program, ATEN_CPU_CAPABILITY="default").splitlines()
    assert line.startswith(f"this CPU ({machine.processor()}) has no AVX2, which the figures of README assume: ")
    assert cpu == f"{machine.processor()}, DEFAULT"
    assert run(program, ATEN_CPU_CAPABILITY="avx2").splitlines() == ["None", f"{machine.processor()}, AVX2"]
