"""Checkpoints: only tensors are read, code is refused, half files never appear."""

import argparse
import os
import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from dd.checkpoints.safe import atomic_path, load_tensors, read_metadata, save_tensors, sha256_file
from dd.errors import DDError

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2])}


class Payload:
    """Creates a file when unpickled: harmless, and it shows whether code ran."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,)) if os.name == "nt" else (os.system, (f"touch {self.marker}",))


def same(found: dict) -> None:
    assert set(found) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert torch.equal(found[name], tensor)


def test_safetensors_round_trip_is_deterministic(tmp_path):
    metadata = {"family": "var", "sizes": [1, 2], "z": 1, "a": 2}
    save_tensors(tmp_path / "one.safetensors", TENSORS, metadata)
    save_tensors(tmp_path / "two.safetensors", dict(reversed(TENSORS.items())), dict(reversed(metadata.items())))
    assert sha256_file(tmp_path / "one.safetensors") == sha256_file(tmp_path / "two.safetensors")
    same(load_tensors(tmp_path / "one.safetensors"))
    assert read_metadata(tmp_path / "one.safetensors") == metadata
    assert sorted(os.listdir(tmp_path)) == ["one.safetensors", "two.safetensors"]


def test_tensors_that_share_memory_are_saved(tmp_path):
    save_tensors(tmp_path / "x.safetensors", {"a": TENSORS["b"], "b": TENSORS["b"]})
    assert torch.equal(load_tensors(tmp_path / "x.safetensors")["b"], TENSORS["b"])
    assert read_metadata(tmp_path / "x.safetensors") == {}


@pytest.mark.parametrize("zipped", [True, False])
def test_nestings(tmp_path, zipped):
    def save(content):
        torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)

    save(OrderedDict(TENSORS))
    same(load_tensors(tmp_path / "x.pt"))
    save({"trainer": {"ema_parameters": TENSORS, "config": {"lr": 1}}, "args": argparse.Namespace(depth=16)})
    same(load_tensors(tmp_path / "x.pt", "trainer.ema_parameters"))
    same(load_tensors(tmp_path / "x.pt", ["ema", "model", "trainer.ema_parameters"]))
    with pytest.raises(DDError, match=r'expected tensors at "model" or the top level .* keys trainer, args: name'):
        load_tensors(tmp_path / "x.pt", ["model", ""])


@pytest.mark.parametrize("form", ["zip", "legacy", "plain"])
def test_code_is_refused_and_does_not_run(tmp_path, form):
    marker, path = tmp_path / "ran", tmp_path / "evil.pt"
    content = {"model": TENSORS, "extra": Payload(marker)}
    if form == "plain":
        path.write_bytes(pickle.dumps({"extra": Payload(marker)}))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(DDError, match=r"evil\.pt holds code \((posix|nt|pathlib.*)\.\w+\), not only tensors"):
        load_tensors(path, "model")
    assert not marker.exists()


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_code_is_found_in_every_pickle_protocol(tmp_path, protocol):
    marker, path = tmp_path / "ran", tmp_path / "evil.pt"
    path.write_bytes(pickle.dumps([1, "x", Payload(marker)], protocol=protocol))
    expected = "holds code" if protocol >= 2 else "starts with the bytes"
    with pytest.raises(DDError, match=expected):
        load_tensors(path)
    assert not marker.exists()


def test_a_class_of_the_user_is_refused_by_name(tmp_path):
    torch.save({"model": torch.nn.Linear(2, 2)}, tmp_path / "x.pt")
    with pytest.raises(DDError, match=r"holds code \(torch\.nn\.modules\.linear\.Linear\)"):
        load_tensors(tmp_path / "x.pt")


@pytest.mark.parametrize("name", ["x.safetensors", "zip.pt", "legacy.pt"])
def test_truncation_is_named(tmp_path, name):
    path = tmp_path / name
    if name.endswith("safetensors"):
        save_tensors(path, TENSORS)
    else:
        torch.save(TENSORS, path, _use_new_zipfile_serialization=name == "zip.pt")
    whole = path.read_bytes()
    for keep in (len(whole) - 9, len(whole) // 2, 20):
        path.write_bytes(whole[:keep])
        with pytest.raises(DDError, match="is truncated or damaged"):
            load_tensors(path)


@pytest.mark.parametrize(
    ("content", "looks"),
    [
        (b"", "the file is empty"),
        (b"<!doctype html>", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
        (b"\xff\xd8\xff\xe0 a photograph", "starts with the bytes ff d8 ff e0"),
    ],
)
def test_foreign_files(tmp_path, content, looks):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(DDError, match=looks):
        load_tensors(tmp_path / "x.pth")


def test_missing_file_folder_and_plain_pickle(tmp_path):
    with pytest.raises(DDError, match="there is no such file"):
        load_tensors(tmp_path / "x.pth")
    with pytest.raises(DDError, match="it is a folder"):
        load_tensors(tmp_path)
    (tmp_path / "p.pt").write_bytes(pickle.dumps({"a" * 100: 1}))
    with pytest.raises(DDError, match="plain pickle"):
        load_tensors(tmp_path / "p.pt")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")

    def interrupted() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["x.txt"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_full_disk_is_said_in_one_line(tmp_path):
    def write() -> None:
        with atomic_path(tmp_path / "x.txt"), open("/dev/full", "w") as file:
            file.write("x")

    with pytest.raises(DDError, match=r"no space left on the disk while writing .*x\.txt: free some space"):
        write()
    assert os.listdir(tmp_path) == []


def test_no_permission(tmp_path):
    folder = tmp_path / "file"
    folder.write_text("")
    with pytest.raises(DDError, match="cannot write"):
        save_tensors(folder / "x.safetensors", TENSORS)
