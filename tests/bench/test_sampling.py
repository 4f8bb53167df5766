"""`dd-cli bench sampling` with tiny networks: what it reports, not how fast they are."""

import json

import pytest
import torch
from typer.testing import CliRunner

from dd.bench import sampling as bench_sampling
from dd.cli.main import app
from dd.errors import DDError
from dd.models import compiled as compiled_models
from dd.models.base import Filters, Teacher
from dd.models.precision import has_bf16, store_in_bf16

pytestmark = pytest.mark.usefixtures("tiny_zoo")


def bench(*arguments: str) -> str:
    command = ["bench", "sampling", "--random-weights", "--device", "cpu", "--batch", "2", "--repeats", "1", *arguments]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize(
    ("family", "groups", "guidance"), [("var", 3, 1.5), ("llamagen", 9, 2.0), ("text", 9, 7.5), ("janus", 9, 5)]
)
def test_json_has_teacher_and_students(family, groups, guidance, tmp_path):
    report = json.loads(bench("--model", f"{family}-tiny", "--dtype", "fp32", "--json"))
    assert json.loads((tmp_path / "results" / "bench" / f"sampling-{family}-tiny.json").read_text()) == report
    assert {"processor", "threads", "torch"} <= set(report["machine"])
    assert (report["batch"], report["dtype"], report["guidance"]) == (2, "fp32", guidance)
    assert [(row["sampler"], row["evaluations"]) for row in report["rows"]] == [
        ("teacher", groups),
        ("dd, one step", 1),
        ("dd, two steps", 2),
    ]
    for row in report["rows"]:
        total = row["tokens_seconds_per_image"] + row["decode_seconds_per_image"]
        assert row["seconds_per_image"] == pytest.approx(total)
        assert row["speedup"] == pytest.approx(report["rows"][0]["seconds_per_image"] / total)
        assert row["peak_memory_gb"] > 0
        assert row["tokens_limit"] > 0
        assert row["decode_limit"] == report["rows"][0]["decode_limit"]
    assert report["rows"][2]["tokens_limit"] > report["rows"][1]["tokens_limit"]


def test_table_names_the_run():
    output = bench("--model", "var-tiny", "--dtype", "bf16")
    dtype = "bf16" if has_bf16() else "fp32"  # what is asked for is not done where it is slow
    assert f"var-tiny, random weights, batch 2, {dtype}, cpu, guidance 1.5" in " ".join(output.split())
    assert "dd, one step" in output


def test_long_times_are_written_out():
    assert [bench_sampling._milliseconds(s) for s in (23.98, 0.1234, 0.00456)] == ["23,980", "123", "4.56"]


def test_compiled_rows_beside_eager_ones(monkeypatch):
    compiled = []
    monkeypatch.setattr(compiled_models, "compile_blocks", compiled.append)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    report = json.loads(bench("--model", "llamagen-tiny", "--dtype", "fp32", "--compile", "--threads", "1", "--json"))
    names = ["teacher", "dd, one step", "dd, two steps"]
    assert [row["sampler"] for row in report["rows"]] == [*names, *(f"{name}, compiled" for name in names)]
    assert len(compiled) == 2
    assert [row["speedup"] for row in report["rows"]][::3] == [1, 1]


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--device", "gpu", "expected auto, cpu or cuda, got gpu"),
        ("--device", "cuda", "expected an accelerator that torch sees, found none: 'dd-cli doctor' says why"),
        ("--dtype", "fp16", "expected auto, bf16 or fp32, got fp16"),
        ("--batch", "0", "should be greater than or equal to 1"),
    ],
)
def test_wrong_options_end_before_anything_is_built(monkeypatch, option, value, said):
    monkeypatch.setattr(bench_sampling, "build", lambda *_: pytest.fail("built a model"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = CliRunner().invoke(app, ["bench", "sampling", "--model", "var-tiny", option, value])
    assert result.exit_code == 2
    words = " ".join(result.output.replace("│", " ").split())
    assert said in words


def test_nothing_is_fetched_unasked():
    with pytest.raises(
        DDError, match="expected a released student of var-tiny, the zoo has none; add --random-weights"
    ):
        bench_sampling.build("var-tiny", False, "cpu")


@pytest.mark.parametrize("family", ["var", "llamagen", "text", "janus"])
def test_only_what_autocast_runs_in_bf16_is_stored_so(family):
    teacher, student = bench_sampling.build(f"{family}-tiny", True, "cpu")
    condition = bench_sampling.conditions(teacher, 2)
    inside = ("blocks.", "layers.", "layerwise_n_d_embed.", "output.", "generation_head.", "generation_aligner.")
    for model in teacher, student:
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
            before = predict(model, condition)
        store_in_bf16(model)
        half = {name for name, tensor in model.state_dict().items() if tensor.dtype == torch.bfloat16}
        assert half
        assert all(any(part in name for part in inside) and "tokenizer" not in name for name in half)
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(predict(model, condition), before)  # the same numbers, without converting at every call


def predict(model, condition):
    if isinstance(model, Teacher):
        return model.log_probs(model.start(condition, Filters(guidance=2.0)))
    noise = torch.randn(2, model.groups.length, 6, generator=torch.Generator().manual_seed(0))
    return model(noise, torch.zeros(2, dtype=torch.int64), condition).logits
