"""bfloat16 is multiplied where the machine has it, and nowhere else."""

import json
import os
import subprocess
import sys

import pytest
import torch

from dd.models import precision
from dd.models.precision import has_bf16, uses_bf16
from tests.helpers import bf16_products
from tests.helpers.paths import ROOT

PARTS = {"training", "sampling", "evaluation", "benches"}
PLAIN = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}


def products(folder, **environment: str) -> dict[str, list[str]]:
    """What a training run, samplers, an evaluation and a bench multiply in bfloat16, asked for it everywhere."""
    settings = os.environ | {"PYTHONPATH": str(ROOT), "CI": "1"} | environment
    command = [sys.executable, "-m", "tests.helpers.bf16_products", str(folder)]
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_no_product_in_bf16_on_a_plain_cpu(tmp_path):
    assert products(tmp_path, **PLAIN) == {part: [] for part in PARTS}


@pytest.mark.skipif(not has_bf16(), reason="this CPU has no bfloat16")
@pytest.mark.parametrize("part", [bf16_products.training, bf16_products.sampling])
def test_the_same_parts_use_bf16_where_the_cpu_has_it(tmp_path, part):
    """So the test above can fail."""
    with bf16_products.Products() as found:
        part("llamagen", tmp_path)
    assert found.found & {"aten.addmm", "aten.mm", "aten.linear"}


def test_float32_is_said_once_where_bf16_was_asked_for(monkeypatch, caplog):
    monkeypatch.setattr("dd.models.precision.has_bf16", lambda device="cpu": False)
    assert not any(uses_bf16("bf16", "a device") for _ in range(2))
    assert [r.getMessage() for r in caplog.records] == [
        "precision bf16: this a device has no native bfloat16, float32 is used instead"
    ]
    assert not uses_bf16("auto")
    assert not uses_bf16("fp32")
    assert torch.is_autocast_enabled("cpu") is False


def test_the_switch_for_tf32_is_as_before_afterwards():
    matmul = torch.backends.cuda.matmul
    assert not matmul.allow_tf32
    with precision.products(tf32=True, device="cuda"):
        assert matmul.allow_tf32
        with precision.products(tf32=False, device="cuda"):
            assert not matmul.allow_tf32
        assert matmul.allow_tf32
        with precision.products(tf32=False, device="cpu"):  # which has no such switch
            assert matmul.allow_tf32
    assert not matmul.allow_tf32
