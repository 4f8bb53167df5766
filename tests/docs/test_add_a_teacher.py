"""The worked example of docs/add-a-teacher.md runs, is short, and keeps the interfaces' promises."""

import re

import pytest
import torch

from dd.models.base import Filters
from tests.helpers.paths import ROOT

PAGE = ROOT / "docs" / "add-a-teacher.md"


@pytest.fixture(scope="module")
def example():
    torch.manual_seed(0)
    names = {}
    exec(compile(code(), str(PAGE), "exec"), names)
    return names


def code() -> str:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 1
    return blocks[0]


def test_it_is_under_a_hundred_lines():
    assert len(code().splitlines()) < 100


def test_the_student_learns_and_draws(example):
    losses = [float(loss.detach()) for loss in example["losses"]]
    assert losses[-1] < 0.75 * losses[0]
    for images in example["images"]:
        assert images.shape == (240, 3, 8, 8)
        assert images.abs().max() < 3


def test_decoding_equals_scoring(example):
    teacher, labels, tokens = example["teacher"], example["labels"][:5], example["tokens"][:5]
    filters = Filters(guidance=2.0)
    scored = teacher.score(tokens, labels, filters)
    state = teacher.start(labels, filters, tokens[:, :4])
    for group in range(1, 4):
        here = teacher.groups.slice(group)
        log_probs = teacher.log_probs(state)
        assert log_probs.dtype == torch.float32
        torch.testing.assert_close(log_probs, scored[:, here])
        torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(5, 4))
        teacher.advance(state, tokens[:, here])


def test_the_tokenizer_reads_what_it_writes(example):
    tokenizer = example["teacher"].tokenizer
    assert torch.equal(tokenizer.encode(tokenizer.decode(tokenizer.codebook[example["tokens"]])), example["tokens"])


def test_the_students_rows_are_independent(example):
    student, e, labels = example["student"], example["e"], example["labels"]
    finished = torch.zeros(240, dtype=torch.int64)
    alone = student(e[7:8], finished[7:8], labels[7:8])
    torch.testing.assert_close(alone.logits, student(e, finished, labels).logits[7:8])
