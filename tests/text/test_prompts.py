"""Prompts as ids: what transformers' own processor makes of them, padded, cut, cached."""

import logging

import pytest
import torch

from dd.errors import DDError
from dd.text import captions
from dd.text.encoders import open_encoder
from tests.helpers.tiny_janus import BOI, BOS, LENGTH, MARKS, write_processor

pytest.importorskip("transformers", reason='the extra "text" is not installed')

TEXTS = ["a red boot", "two black boots above the small bag"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return open_encoder(write_processor(tmp_path_factory.mktemp("processor")), 1)


def test_ids_are_those_of_the_processor(encoder):
    turns = [[{"role": "user", "content": [{"type": "text", "text": text}]}] for text in TEXTS]
    processor = encoder.processor
    prompts = processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    expected = processor(text=prompts, generation_mode="image", padding=True, return_tensors="pt")
    found = encoder.encode(TEXTS, LENGTH)
    longest = expected["input_ids"].shape[1]
    mask = expected["attention_mask"].bool()
    assert torch.equal(found.mask[:, -longest:], mask)
    assert not found.mask[:, :-longest].any()
    assert torch.equal(found.states[:, -longest:, 0][mask], expected["input_ids"][mask])
    assert found.states.dtype == torch.int64
    assert not mask.all()  # one of them is padded, on the left
    assert found.mask[:, -1].all()


def test_a_prompt_begins_and_ends_with_its_marks(encoder):
    found = encoder.encode(["a bag"], LENGTH)
    ids = found.states[0, :, 0][found.mask[0]].tolist()
    assert (ids[0], ids[-1]) == (MARKS.index(BOS), MARKS.index(BOI))


def test_a_long_prompt_loses_its_end_and_keeps_its_marks(encoder, caplog):
    with caplog.at_level(logging.WARNING):
        found = encoder.encode(["a red boot " * 900, "a bag"], LENGTH)
    assert f"1 caption(s) longer than {LENGTH} word pieces were cut, the first: 'a red boot a red boot" in caplog.text
    ids = found.states[0, :, 0].tolist()
    whole = encoder.encode(["a red boot " * 2], LENGTH).states[0, :, 0].tolist()
    assert found.mask[0].sum() > 8
    assert (ids[-1], ids[-2]) == (whole[-1], whole[-2])  # what stands behind the caption
    assert MARKS.index(BOS) in ids
    assert caplog.text.count("cut") == 1


def test_wrong_prompts_and_names(encoder, tmp_path):
    with pytest.raises(DDError, match="caption 2: expected some words, got an empty one"):
        encoder.encode(["a bag", " "], LENGTH)
    with pytest.raises(
        DDError, match=r"expected at least \d+ rows \(for the processor's own marks\), the teacher has 3"
    ):
        encoder.encode(["a bag"], 3)
    with pytest.raises(DDError, match=r"expected states of width 12 .* it gives 1; use the encoder"):
        open_encoder(encoder.name, 12)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DDError, match=r"processor:.*empty: no processor that could be read .* give a folder that hol"):
        open_encoder(f"processor:{tmp_path / 'empty'}", 1)


def test_the_cache_keeps_ids_as_they_are(encoder, tmp_path):
    texts = [*TEXTS, TEXTS[0]]
    states = captions.caption_states(texts, encoder.name, 1, LENGTH, tmp_path)
    direct = encoder.encode(texts, LENGTH)
    for _ in range(2):  # made, then read
        found = states(torch.tensor([0, 1, 2]))
        assert torch.equal(found.states, direct.states)
        assert torch.equal(found.mask, direct.mask)
        states = captions.caption_states(texts, encoder.name, 1, LENGTH, tmp_path)
    assert states.flat.dtype.name == "int32"
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 1
