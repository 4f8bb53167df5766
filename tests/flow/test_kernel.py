"""The fused kernels, run by Triton's interpreter on the CPU, against the plain version; compiled for cards."""

import os
import subprocess
import sys

import pytest
import torch

from dd.flow import kernel

CHECK = """
import math
import torch
from dd.flow import kernel as flow_kernel
from dd.flow.map import Codes, map_noise
from dd.trajectories.noise import noise
from tests.helpers.codebooks import peaked, random_codebook

flow_kernel.SPAN = 128  # several spans of few codes
generator = torch.Generator().manual_seed(0)
for count, size, width in ((1, 2, 3), (33, 200, 9), (40, 300, 33)):
    left, codes = torch.randn(count, width, generator=generator), torch.randn(size, width, generator=generator)
    log_probs = (3 * torch.randn(count, size, generator=generator)).log_softmax(-1)
    log_probs[:, 1::3] = -math.inf
    log_probs[0, 128:] = -math.inf  # a span without any
    moments, light = flow_kernel.posterior_mean(left, log_probs, codes, 0.003)
    weights = (log_probs + left @ codes.T).softmax(-1)
    torch.testing.assert_close(moments, weights @ codes, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(light, weights.clamp(max=0.003).sum(-1), atol=1e-5, rtol=1e-4)
    for active in (torch.ones(count), torch.arange(count) % 2, torch.zeros(count)):
        for group in (1, 2, 3):  # what a program walks changes no bit, and who else is active neither
            found = flow_kernel._sums(left, log_probs, codes, active.to(torch.int8), group)[0]
            assert torch.equal(found[active.bool()], moments[active.bool()])

codes, log_p, e = random_codebook(150, 8), peaked(60, 150, 2.0), noise(0, range(60), 1, 8)[:, 0]
assert flow_kernel.usable(e, 150)
fused = map_noise(e, log_p, codes)
fixed = map_noise(e, log_p, codes, fixed=True)
flow_kernel.usable = lambda x, codes=0: False
plain = map_noise(e, log_p, codes)
for found in (fused, fixed):
    assert (found.tokens == plain.tokens).sum() >= 59, (found.tokens, plain.tokens)
print("fine")
"""

COMPILE = """
import inspect
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from dd.flow import kernel, kernel_triton

def pointer_or_number(name):
    kind = {"active_p": "*i8", "threshold": "fp32"}.get(name)
    return kind or ("*fp32" if name.endswith("_p") else "i32")

for width, capability in ((9, 90), (33, 80)):
    constants = {"width": width, "padded": kernel._padded(width), "tokens": kernel.TOKENS}
    constants |= {"codes_n": kernel.CODES, "span": kernel.SPAN}
    for function in (kernel_triton.partial_sums, kernel_triton.join_sums, kernel_triton.partial_light):
        names = list(inspect.signature(function.fn).parameters)
        signature = {name: "constexpr" if name in constants else pointer_or_number(name) for name in names}
        known = {(names.index(name),): value for name, value in constants.items() if name in names}
        source = ASTSource(fn=function, signature=signature, constexprs=known)
        made = triton.compile(source, target=GPUTarget("cuda", capability, 32))
        assert len(made.asm["cubin"]) > 1000
        assert made.metadata.shared <= 64 * 1024, made.metadata.shared  # fits beside others on one multiprocessor
print("fine")
"""


def run(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("triton")
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    return subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)


@pytest.mark.skipif(sys.platform != "linux", reason="Triton is for Linux")
def test_the_fused_kernels_equal_the_plain_version():
    done = run(CHECK, TRITON_INTERPRET="1")
    assert done.stdout == "fine\n", done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="Triton is for Linux")
def test_the_kernels_compile_for_cards_that_are_not_here(tmp_path):
    done = run(COMPILE, TRITON_CACHE_DIR=str(tmp_path))
    assert done.stdout == "fine\n", done.stderr


def test_on_a_cpu_the_plain_version_runs():
    assert os.environ.get("TRITON_INTERPRET") == "1" or not kernel.usable(torch.zeros(2, 8))


def test_the_fastest_choice_is_taken(monkeypatch):
    took = {1: 3.0, 2: 1.0, 4: 2.0}
    monkeypatch.setattr(kernel, "seconds", lambda device, work: took[work()])
    assert kernel.fastest(torch.device("cpu"), [1, 2, 4], lambda group: group) == 2


def test_the_plain_version_is_taken_only_where_it_is_clearly_faster(monkeypatch):
    times = iter([3.0, 2.0, 5.0, 2.0])
    monkeypatch.setattr(kernel, "seconds", lambda *_: next(times))
    card, none = torch.device("cuda"), torch.zeros(0)
    monkeypatch.setattr(kernel, "_example", lambda *_: (none, none, none))
    kernel._pays.cache_clear()
    assert kernel._pays(card, 256, 16384, 8)  # half as fast again: no reason
    assert kernel._pays(card, 256, 16384, 8)  # measured once
    assert not kernel._pays(card, 512, 16384, 8)
    kernel._pays.cache_clear()


def test_what_a_program_walks_is_measured_once_and_never_while_a_graph_is_recorded(monkeypatch):
    class OnCard:
        device = torch.device("cuda")
        shape = (256, 9)

        def __len__(self) -> int:
            return 256

    recording, measured = [True], []

    def fastest(device, choices, work):
        measured.append(choices)
        return 4

    monkeypatch.setattr(kernel, "fastest", fastest)
    monkeypatch.setattr(kernel, "_groups", {})
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: recording[0])
    monkeypatch.setattr(torch, "ones", lambda *_, **__: None)
    codes = range(16384)
    assert kernel.group_for(OnCard(), None, codes) == 1
    recording[0] = False
    assert [kernel.group_for(OnCard(), None, codes) for _ in range(2)] == [4, 4]
    assert measured == [[1, 2, 4, 8, 16]]
