"""Reading fixtures and comparing tensors."""

from __future__ import annotations

import json
import lzma
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, load_file
from torch import Tensor

from dd.errors import DDError
from dd.models.base import Groups, Student, StudentOutput
from dd.models.codebook import nearest_code
from dd.sampling.samplers import known

ATOL, RTOL = 2e-4, 1e-4
Outputs = Iterator[tuple[str, Tensor]]


@dataclass(frozen=True)
class Row:
    """How one stored output compares with ours. Differences are over finite numbers; null for integers."""

    fixture: str
    output: str
    max_abs: float | None
    max_rel: float | None
    integer_mismatches: int | None
    passed: bool
    problem: str = ""


@dataclass(frozen=True)
class Fixture:
    """One entry of README.json with its files."""

    folder: Path
    name: str
    entry: dict[str, Any]
    others: dict[str, dict[str, Any]] = field(repr=False)

    @property
    def config(self) -> dict[str, Any]:
        """Sizes."""
        return self.entry["config"]

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """Official state dict."""
        return read_tensors(self.folder / self.entry["files"]["weights"])

    @cached_property
    def io(self) -> dict[str, Tensor]:
        """Stored inputs `in.*` and outputs `out.*`."""
        return read_tensors(self.folder / self.entry["files"]["io"])

    @cached_property
    def inputs(self) -> dict[str, Tensor]:
        """Inputs without their prefix."""
        return {name.removeprefix("in."): tensor for name, tensor in self.io.items() if name.startswith("in.")}

    @cached_property
    def expected(self) -> dict[str, Tensor]:
        """Outputs without their prefix."""
        return {name.removeprefix("out."): tensor for name, tensor in self.io.items() if name.startswith("out.")}

    def dependency(self, letter: str) -> Fixture:
        """Another fixture whose weights this one uses, by the letter that its name starts with."""
        needed = " ".join(self.entry["files"].get("depends_on", ()))
        found = [name for name in self.others if name.startswith(letter + "_")]
        if not found:
            raise DDError(
                f"fixture {self.name}: expected a fixture {letter}_* in the same README.json, found none; add it"
            )
        name = next((name for name in found if self.others[name]["files"]["weights"] in needed), found[0])
        return Fixture(self.folder, name, self.others[name], self.others)

    def series(self, stem: str, among: dict[str, Tensor] | None = None) -> list[Tensor]:
        """Tensors stem.0, stem.1, ... in order."""
        among = self.inputs if among is None else among
        found: list[Tensor] = []
        while f"{stem}.{len(found)}" in among:
            found.append(among[f"{stem}.{len(found)}"])
        return found

    def numbers(self, stem: str) -> list[int]:
        """The integers i for which an output stem.i is stored."""
        found = (re.fullmatch(re.escape(stem) + r"\.(\d+)", name) for name in self.expected)
        return sorted(int(match[1]) for match in found if match)

    def meaning(self, output: str) -> str:
        """README's words about an output."""
        return self.entry["tensors"].get(f"out.{output}", {}).get("meaning", "")

    def setting(self, output: str, pattern: str, default: float) -> float:
        """A number that README's words about an output mention."""
        match = re.search(pattern, self.meaning(output))
        return float(match[1]) if match else default

    def sampling_settings(self) -> list[list[Any]]:
        """[[t_list, split], ...] of the stored samples, from the notes."""
        for note in self.entry["notes"]:
            if match := re.search(r"Sampling settings of sample\.\*.*?: (\[\[.*\]\])", note):
                return json.loads(match[1])
        raise DDError(f"fixture {self.name}: expected a note 'Sampling settings of sample.*', found none; add it")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A safetensors file, also xz-compressed."""
    if path.suffix == ".xz":
        return load(lzma.decompress(path.read_bytes()))
    return load_file(path)


def read_fixtures(folder: Path) -> list[Fixture]:
    """All fixtures of a folder. Raises DDError if there are none."""
    try:
        readme = json.loads((folder / "README.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DDError(
            f"expected golden fixtures in {folder}, found no README.json; set DD_GOLDEN to the folder that has them"
        ) from None
    entries = {name: entry for name, entry in readme.items() if not name.startswith("_")}
    return [Fixture(folder, name, entry, entries) for name, entry in entries.items()]


def compare(fixture: str, output: str, expected: Tensor, ours: Tensor) -> Row:
    """Integers must be equal; floats within ATOL + RTOL * |expected|, infinities in the same places."""
    if expected.shape != ours.shape:
        return Row(fixture, output, None, None, None, False, f"shape {tuple(ours.shape)}, not {tuple(expected.shape)}")
    if not expected.is_floating_point():
        wrong = int((expected.long() != ours.long()).sum())
        return Row(fixture, output, None, None, wrong, wrong == 0)
    expected, ours = expected.double(), ours.double()
    finite = expected.isfinite()
    if not torch.equal(finite, ours.isfinite()) or not torch.equal(expected[~finite], ours[~finite]):
        return Row(fixture, output, None, None, None, False, "infinities in other places")
    gap, size = (expected - ours)[finite].abs(), expected[finite].abs()
    if not len(gap):
        return Row(fixture, output, 0.0, 0.0, None, True)
    relative = float((gap / size.clamp_min(1e-12)).max())
    return Row(fixture, output, float(gap.max()), relative, None, bool((gap <= ATOL + RTOL * size).all()))


def run_fixture(fixture: Fixture, compute: Callable[[Fixture], Outputs]) -> list[Row]:
    """Compare every stored output of a fixture; one that we do not compute fails."""
    with torch.inference_mode():
        ours = dict(compute(fixture))
    rows = []
    for output, expected in fixture.expected.items():
        if output in ours:
            rows.append(compare(fixture.name, output, expected, ours[output]))
        else:
            rows.append(Row(fixture.name, output, None, None, None, False, "not computed"))
    return rows


def summary(rows: list[Row]) -> dict[str, Any]:
    """What --json prints: every row, and the worst of each fixture."""
    names = list(dict.fromkeys(row.fixture for row in rows))
    fixtures = {}
    for name in names:
        mine = [row for row in rows if row.fixture == name]
        fixtures[name] = {
            "outputs": len(mine),
            "passed": all(row.passed for row in mine),
            "max_abs": max((row.max_abs for row in mine if row.max_abs is not None), default=None),
            "max_rel": max((row.max_rel for row in mine if row.max_rel is not None), default=None),
            "integer_mismatches": sum(row.integer_mismatches or 0 for row in mine),
        }
    passed = bool(rows) and all(row.passed for row in rows)
    return {
        "passed": passed,
        "atol": ATOL,
        "rtol": RTOL,
        "fixtures": fixtures,
        "rows": [asdict(row) for row in rows],
    }


def watch_gaps(student: Student) -> list[Tensor]:
    """A list that collects the gap between the best two logits of every forward pass from now on."""
    gaps: list[Tensor] = []
    student.register_forward_hook(lambda _, __, output: gaps.append(gap_of_best(output.logits, largest=True)))
    return gaps


def gap_of_best(values: Tensor, largest: bool) -> Tensor:
    """(1,): the smallest difference between the best and the second best of the last dimension."""
    best = values.topk(2, dim=-1, largest=largest).values
    return (best[..., 0] - best[..., 1]).abs().min().reshape(1).float()


def final_predict(
    output: StudentOutput, x: Tensor, finished: Tensor, groups: Groups, codebook: Tensor
) -> StudentOutput:
    """The student's output as the authors' code returns it, with known positions put back.

    Their codes are as given, their logits 0 at the nearest code, else -inf.

    x: (B, L, C) the student's input. The nearest code is searched only if something is known.
    """
    keep = known(finished, groups)
    if not bool(keep.any()):
        return output
    logits = output.logits.clone()
    logits[keep] = torch.full_like(logits[keep], float("-inf")).scatter_(
        1, nearest_code(x[keep], codebook)[:, None], 0.0
    )
    return StudentOutput(logits, torch.where(keep[..., None], x, output.codes))
