"""Files of captions, and their states computed once."""

import io
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
from tests.helpers.tiny_text import LENGTH, WIDTH


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
