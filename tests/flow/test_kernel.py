"""The fused kernel, run by Triton's interpreter on the CPU, against the plain version."""

import os
import subprocess
import sys

import pytest

CHECK = """
import math
import torch
from dd.flow import kernel as flow_kernel
from dd.flow.map import Codes, map_noise
from dd.flow.kernel import posterior_mean, usable
from dd.trajectories.noise import noise
from tests.helpers.codebooks import peaked, random_codebook

generator = torch.Generator().manual_seed(0)
for count, size, width in ((1, 2, 3), (33, 200, 9), (40, 65, 33)):
    left, codes = torch.randn(count, width, generator=generator), torch.randn(size, width, generator=generator)
    log_probs = (3 * torch.randn(count, size, generator=generator)).log_softmax(-1)
    log_probs[:, 1::3] = -math.inf
    moments, light = posterior_mean(left, log_probs, codes, 0.003)
    weights = (log_probs + left @ codes.T).softmax(-1)
    torch.testing.assert_close(moments, weights @ codes, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(light, weights.clamp(max=0.003).sum(-1), atol=1e-5, rtol=1e-4)

codes, log_p, e = random_codebook(150, 8), peaked(60, 150, 2.0), noise(0, range(60), 1, 8)[:, 0]
assert usable(e)
fused = map_noise(e, log_p, codes)
flow_kernel.usable = lambda x: False
plain = map_noise(e, log_p, codes)
assert (fused.tokens == plain.tokens).sum() >= 59, (fused.tokens, plain.tokens)
print("fine")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Triton is for Linux")
def test_the_fused_kernel_equals_the_plain_version():
    pytest.importorskip("triton")
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", CHECK], env=environment, capture_output=True, text=True)
    assert done.stdout == "fine\n", done.stderr


def test_on_a_cpu_the_plain_version_runs():
    import torch

    from dd.flow.kernel import usable

    assert os.environ.get("TRITON_INTERPRET") == "1" or not usable(torch.zeros(2, 8))
