"""Samples and distances by class on the page."""

import re
from pathlib import Path

import torch
from PIL import Image

from dd.evaluation import figures
from dd.report.tiles import class_table, read_sheet
from tests.helpers.report_rows import imagined_rows, tiled


def test_distances_by_class():
    rows = imagined_rows()
    assert class_table(rows) == ""
    rows[2]["class_distances"] = {"hat": 1.25, "<b>": 20.0}
    rows[3]["class_distances"] = {"hat": 2.5}
    text = class_table(rows)
    assert re.findall(r"<t[hd] [^>]*>([^<]*)<", text) == [
        "class",
        "teacher",
        "dd 0",
        "hat",
        "1.25",
        "2.50",
        "&lt;b&gt;",
        "20.0",
        "–",
    ]
    assert text.count("data-value") == 3


def test_tiles_are_chosen_by_class_and_written_for_the_page(tmp_path: Path):
    tiles = figures.Tiles.of(torch.tensor([1, 0, 1, 1, 0, 2]), ("hat", "shoe", "bag", "none"), each=2)
    assert (tiles.names, tiles.each, tiles.indices.tolist()) == (("hat", "shoe", "bag"), 1, [1, 0, 5])
    late = figures.Tiles.of(torch.tensor([7, 3]), [f"class {n}" for n in range(9)], most=2)  # two images, of 9 classes
    assert (late.names, late.each, late.indices.tolist()) == (("class 3", "class 7"), 1, [1, 0])
    captions = figures.Tiles.of(None, ["a", "b"])
    assert (captions.names, captions.each, captions.indices.tolist()) == (("a", "b"), 1, [0, 1])
    sheet = read_sheet(tiled(tmp_path) / "results" / "llamagen-toy")
    assert (sheet.side, sheet.each, sheet.names) == (28, 3, ("hat", "shoe"))
    with Image.open(sheet.path) as picture:
        assert picture.size == (6 * 28, 6 * 28)
    large = torch.zeros(2, 3, 200, 200, dtype=torch.uint8)
    figures.write_tiles({"dd": large}, figures.Tiles.of(None, ["a", "b"]), tmp_path)
    with Image.open(tmp_path / "tiles.webp") as picture:
        assert picture.size == (2 * 96, 96)
    grid = figures.sample_grid({"teacher": large}, ["a red boot above a bag", "two hats"])
    assert [text.get_text() for text in grid.texts] == ["a red boot\nabove a bag", "two hats"]
