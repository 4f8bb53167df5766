"""The emulation of TF32, and what it does to a small teacher's tokens."""

import json

import torch
from typer.testing import CliRunner

from dd.bench import precision
from dd.bench.precision import Loop, measure, rounded, to_tf32, unexpected
from dd.cli.main import app
from dd.models.base import Filters
from dd.trajectories.noise import noise
from tests.helpers.toy_project import tiny_teacher


def test_tf32_keeps_ten_bits_of_the_mantissa():
    exact = torch.tensor([1.0, -1.5, 1 + 2**-10, 3.0e-5, 0.0])
    kept = to_tf32(exact)
    assert torch.equal(kept[[0, 1, 2, 4]], exact[[0, 1, 2, 4]])
    assert abs(float(kept[3] / exact[3]) - 1) <= 2**-11
    assert to_tf32(torch.tensor(1 + 2**-11 - 2**-20)) == 1  # below the half, down
    assert to_tf32(torch.tensor(-(1 + 2**-11))) == -(1 + 2**-10)  # a half, away from zero
    assert to_tf32(torch.tensor([1, 2])).dtype == torch.int64


def test_products_inside_have_rounded_factors_and_nothing_else_changes():
    a, b = (torch.randn(8, 8, generator=torch.Generator().manual_seed(n)) for n in range(2))
    with rounded("tf32"):
        product, total = a @ b, a + b
    assert torch.equal(product, to_tf32(a) @ to_tf32(b))
    assert not torch.equal(product, a @ b)
    assert torch.equal(total, a + b)
    q = torch.randn(1, 1, 4, 8)
    with rounded("tf32"):
        seen = torch.nn.functional.scaled_dot_product_attention(q, q, q)
    assert torch.equal(seen, torch.nn.functional.scaled_dot_product_attention(*[to_tf32(q)] * 3))


def test_float32_agrees_with_itself_and_coarser_products_less():
    teacher = tiny_teacher("var")
    rows = {row.case: row for row in measure("tiny", teacher, Filters(guidance=1.5), 60, 0)}
    again, flow = rows["float32 again"], rows["teacher in bfloat16"]
    assert (again.same_context, again.whole_images) == (1, 1)
    assert 0.9 < flow.same_context < 1
    assert flow.whole_images <= flow.same_context
    assert all(abs(row.standard_errors) < 4 for row in rows.values())


def test_tokens_of_another_distribution_are_surprising():
    teacher, classes = tiny_teacher("llamagen"), torch.arange(60) % 3
    e = noise(0, torch.arange(60), 9, 4)
    drawn = Loop(teacher, classes, Filters(), e).tokens("fp32", "fp32")
    assert abs(unexpected(teacher, classes, Filters(), drawn)[1]) < 4
    assert unexpected(teacher, classes, Filters(), torch.zeros_like(drawn))[1] > 4


def test_the_command_prints_a_row_for_each_case(monkeypatch, tmp_path):
    monkeypatch.setattr("dd.checkpoints.teachers.load_teacher", lambda name: tiny_teacher("llamagen"))
    monkeypatch.setattr("dd.bench.sampling.teacher_filters", lambda name: Filters())
    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    done = CliRunner().invoke(app, ["bench", "precision", "--teacher", "any", "--images", "4", "--json"])
    assert done.exit_code == 0, done.output
    assert [row["case"] for row in json.loads(done.stdout)] == list(precision.CASES)
    assert (tmp_path / "results" / "bench" / "precision.json").is_file()
