"""Caption files, and their encoded states: computed once, kept in one memory-mapped file, read row by row.

A caption file is .txt (one a line), .csv or .parquet (column `caption`). States are float16 (ids, where the teacher
reads the text itself, int32) and only as long as the caption; equal captions are encoded once. The cache's name is a
fingerprint of captions, encoder and length, and a killed run goes on where it stopped.
"""

from __future__ import annotations

import csv
import hashlib
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from filelock import FileLock
from torch import Tensor

from dd.checkpoints.teachers import TeacherInfo, read_info
from dd.errors import DDError
from dd.system.files import atomic_path
from dd.system.progress import Progress, progress
from dd.text.conditions import Captions
from dd.text.encoders import AnyEncoder, identify, open_encoder

log = logging.getLogger(__name__)

COLUMN = "caption"
SCENE_COLUMNS = ("layout", "attributes")  # of dd.datasets.scenes
Split = Literal["train", "test"]
FORMAT = 2  # of the cache
STATES, LENGTHS = "states", "lengths.npy"  # its files: all states, one after the other; rows of each caption
SHARD = 2048  # captions that are appended at once
BATCH = 64  # captions encoded at once


# ---------------------------------------------------------------------------------------------------------------- files


def read_captions(path: Path, column: str = COLUMN) -> list[str]:
    """All captions of a file. Raises DDError for a file that is none, and names the line that is empty."""
    captions = list(iterate_captions(path, column))
    if not captions:
        raise DDError(f"{path}: expected captions, the file holds none")
    for number, caption in enumerate(captions, 1):
        if not caption.strip():
            raise DDError(f"{path}: caption {number} is empty; write or remove it")
    return captions


def iterate_captions(path: Path, column: str = COLUMN) -> Iterator[str]:
    """Captions one after the other, never the whole file at once. Blank last lines of a .txt are no captions."""
    readers = {".txt": _lines, ".csv": _csv, ".parquet": _parquet}
    if path.suffix.lower() not in readers:
        raise DDError(f"{path}: expected a caption file .txt, .csv or .parquet; convert it")
    try:
        yield from readers[path.suffix.lower()](path, column)
    except FileNotFoundError:
        raise DDError(f"no caption file {path}: check the path") from None
    except UnicodeDecodeError:
        raise DDError(f"{path}: expected UTF-8 text, got another encoding; convert it") from None


def _lines(path: Path, column: str) -> Iterator[str]:
    pending = 0
    with path.open(encoding="utf-8-sig") as file:
        for line in file:
            if not line.strip():
                pending += 1
                continue
            yield from [""] * pending
            pending = 0
            yield line.strip()


def _csv(path: Path, column: str) -> Iterator[str]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        _demand(path, column, rows.fieldnames or [])
        for row in rows:
            yield row[column] or ""


def _parquet(path: Path, column: str) -> Iterator[str]:
    try:
        with pq.ParquetFile(path) as file:
            _demand(path, column, file.schema_arrow.names)
            for batch in file.iter_batches(8192, columns=[column]):
                for value in batch.column(0).to_pylist():
                    yield "" if value is None else str(value)
    except pa.ArrowInvalid as error:
        raise DDError(f"{path} is no Parquet file ({str(error).splitlines()[0]}): write it again") from None


def _demand(path: Path, column: str, names: Iterable[str]) -> None:
    if column not in names:
        raise DDError(f"{path}: expected a column '{column}', got {', '.join(names) or 'none'}; rename one")


def copy_captions(source: Path, target: Path, column: str = COLUMN, watched: Path | None = None) -> int:
    """A caption file, checked, as Parquet; what a Parquet file says of scenes comes along. Returns their number.

    watched: the folder that DVC watches; a file elsewhere is named in a warning.
    """
    if watched and not Path(os.path.abspath(source)).is_relative_to(
        os.path.abspath(watched)
    ):  # links may lead anywhere
        log.warning("DVC does not watch %s: link it into %s/, or changes to it rerun nothing", source, watched.name)
    captions = read_captions(source, column)
    columns = {COLUMN: pa.chunked_array([pa.array(captions, pa.string())])}
    if source.suffix.lower() == ".parquet":
        found = pq.read_table(source)
        columns |= {name: found[name] for name in SCENE_COLUMNS if name in found.column_names}
    with atomic_path(target) as scratch:
        pq.write_table(pa.table(columns), scratch, compression="zstd")
    return len(captions)


def caption_file(teacher_dir: Path, split: Split) -> Path:
    """Where the stage `teacher` leaves an experiment's captions."""
    return teacher_dir / f"captions-{split}.parquet"


def scene_facts(path: Path) -> tuple[Tensor | None, Tensor | None]:
    """What a caption file of scenes knows: layouts (N,) int64 and what a reader should find (N, heads) int64."""
    table = pq.read_table(path)
    found: list[Tensor | None] = []
    for name in SCENE_COLUMNS:
        if name not in table.column_names:
            found.append(None)
            continue
        column = table[name].combine_chunks()
        values = column.flatten() if pa.types.is_nested(column.type) else column
        array = torch.from_numpy(values.to_numpy(zero_copy_only=False).astype(np.int64))
        found.append(array.view(len(column), -1) if pa.types.is_nested(column.type) else array)
    return found[0], found[1]


# --------------------------------------------------------------------------------------------------------------- states


@dataclass(frozen=True)
class CaptionStates:
    """Encoded captions on disk.

    rows: (N,) which distinct caption each one is. The states of distinct caption d are rows starts[d] .. starts[d + 1]
    of `flat` (sum, W), float16 states or int32 ids, a file that the operating system pages in and out.
    """

    flat: np.ndarray
    starts: np.ndarray
    rows: np.ndarray
    length: int

    def __len__(self) -> int:
        return len(self.rows)

    def __call__(self, numbers: Tensor) -> Captions:
        """The captions of numbers (B,), left-padded: states (B, T, W), float32 or int64, and mask (B, T)."""
        kind = torch.float32 if self.flat.dtype.kind == "f" else torch.int64
        states = torch.zeros(len(numbers), self.length, self.flat.shape[1], dtype=kind)
        mask = torch.zeros(len(numbers), self.length, dtype=torch.bool)
        for place, row in enumerate(self.rows[numbers.cpu().numpy()]):
            found = self.flat[self.starts[row] : self.starts[row + 1]]
            states[place, self.length - len(found) :] = torch.from_numpy(np.array(found)).to(kind)
            mask[place, self.length - len(found) :] = True
        return Captions(states, mask)


def captions_hash(captions: Iterable[str], *parts: object) -> str:
    """SHA-256 of captions and of what else their states depend on."""
    digest = hashlib.sha256(" ".join(map(str, parts)).encode())
    for caption in captions:
        digest.update(b"\0" + caption.encode())
    return digest.hexdigest()


def plan_captions(teacher_dir: Path, split: Split, most: int) -> tuple[int, str]:
    """How many captions an experiment uses, and the SHA-256 of them and their encoding, without encoding any."""
    encoder, _, length = _encoding(read_info(teacher_dir))
    captions = read_captions(caption_file(teacher_dir, split))[:most]
    return len(captions), captions_hash(captions, encoder, length)


def open_captions(
    teacher_dir: Path, split: Split, cache: Path, most: int, device: str | torch.device = "cpu"
) -> CaptionStates:
    """The encoded captions of an experiment, the first `most`; what is not in the cache yet is encoded now."""
    captions = read_captions(caption_file(teacher_dir, split))[:most]
    return caption_states(captions, *_encoding(read_info(teacher_dir)), cache, device)


def _encoding(info: TeacherInfo) -> tuple[str, int, int]:
    """Encoder, width and length of a teacher's captions."""
    if info.text_encoder is None:
        raise DDError(f"teacher {info.name} draws from classes, not from captions: remove the captions")
    config = {"caption_dim": 2048, "cls_token_num": 120, **info.transformer_config}  # the official model's defaults
    return info.text_encoder, config["caption_dim"], config["cls_token_num"]


def caption_states(
    captions: list[str], name: str, width: int, length: int, cache: Path, device: str | torch.device = "cpu"
) -> CaptionStates:
    """The states of captions from the cache folder; the encoder is loaded only where some are missing.

    name: of the encoder; width, length: the teacher's caption_dim and cls_token_num. One process encodes, the others
    wait for it.
    """
    identity, stored = identify(name, width)
    distinct = list(dict.fromkeys(captions))
    folder = cache / captions_hash(distinct, name, identity, width, length, FORMAT)[:16]
    folder.mkdir(parents=True, exist_ok=True)
    bytes_per_row = np.dtype(stored).itemsize * width
    if len(_lengths(folder, bytes_per_row)) < len(distinct):
        with FileLock(folder / "lock"):
            done = _lengths(folder, bytes_per_row)  # by a process that had the lock before
            if len(done) < len(distinct):
                _encode_rest(folder, distinct, done, open_encoder(name, width, device), length)
    starts = np.concatenate([[0], np.cumsum(_lengths(folder, bytes_per_row), dtype=np.int64)])
    flat = np.memmap(folder / STATES, dtype=stored, mode="r", shape=(int(starts[-1]), width))
    number = {caption: row for row, caption in enumerate(distinct)}
    return CaptionStates(flat, starts, np.array([number[caption] for caption in captions]), length)


def _lengths(folder: Path, bytes_per_row: int) -> np.ndarray:
    """Rows of each distinct caption whose states are in the file, in order; what a damaged file lacks is left out."""
    try:
        lengths = np.load(folder / LENGTHS)
        held = (folder / STATES).stat().st_size // bytes_per_row
    except (OSError, ValueError, EOFError):
        return np.zeros(0, np.uint16)
    return lengths[: int(np.searchsorted(np.cumsum(lengths, dtype=np.int64), held, side="right"))]


def _encode_rest(folder: Path, distinct: list[str], done: np.ndarray, encoder: AnyEncoder, length: int) -> None:
    """Append the states that are missing to the one file, SHARD captions at a time; a kill loses one time at most."""
    width, lengths = np.dtype(encoder.stored).itemsize * encoder.width, done
    missing = range(len(done), len(distinct), SHARD)
    bar: Progress[None]
    with (folder / STATES).open("ab") as file, progress(len(missing), unit="shards", label="captions") as bar:
        file.truncate(int(done.sum(dtype=np.int64)) * width)
        for start in missing:
            states = _encode(distinct[start : start + SHARD], encoder, length)
            file.write(b"".join(states))
            file.flush()
            os.fsync(file.fileno())
            lengths = np.concatenate([lengths, np.array([len(one) // width for one in states], np.uint16)])
            with atomic_path(folder / LENGTHS) as scratch, scratch.open("wb") as index:
                np.save(index, lengths)
            bar.update()


def _encode(captions: list[str], encoder: AnyEncoder, length: int) -> list[bytes]:
    """States of captions as they are stored; in order of length, so that little is padded."""
    order = sorted(range(len(captions)), key=lambda i: len(captions[i]))
    states: dict[int, bytes] = {}
    for first in range(0, len(order), BATCH):
        chosen = order[first : first + BATCH]
        found = encoder.encode([captions[i] for i in chosen], length)
        for i, rows, mask in zip(chosen, found.states, found.mask, strict=True):
            states[i] = rows[mask].numpy().astype(encoder.stored).tobytes()
    return [states[i] for i in range(len(captions))]
