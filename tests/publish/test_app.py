"""The page to play with: what it draws, its refusals, and its service on loopback as a client and a browser meet it."""

import json
import re
import runpy
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

import dd
from dd.cli.main import app as command
from dd.errors import DDError
from dd.publish import app
from dd.publish.drawing import draw, samplers, side_by_side, tiled
from dd.publish.export import export
from tests.helpers.browser import CHROMIUM, Browser
from tests.helpers.paths import ROOT
from tests.helpers.tiny_models import tiny_encoder, tiny_model

__all__ = ["tiny_encoder"]
ALL = ["one step", "two steps", "teacher"]


# ----------------------------------------------------------------------------------------------------- without a page


@pytest.mark.parametrize(("kind", "wanted"), [("llamagen", "shoe"), ("text", "a red boot")])
def test_one_noise_by_every_sampler(request, kind: str, wanted: str):
    request.getfixturevalue("tiny_encoder")
    model = tiny_model(kind)
    assert list(samplers(model)) == ALL
    drawn = draw(model, wanted, 5, 3, ALL)
    assert [one.title for one in drawn] == ALL
    assert all(re.fullmatch(r".+: 3 images in \d+\.\d\d s", one.caption) for one in drawn)
    what = {"prompts": [wanted]} if kind == "text" else {"classes": [wanted]}
    for one, steps in zip(drawn, (1, 2, "teacher"), strict=True):
        assert np.array_equal(one.picture, tiled(model.sample(**what, n=3, steps=steps, seed=5)))
    assert side_by_side(drawn).shape[1] > 3 * drawn[0].picture.shape[1]


def test_a_grid_enlarges_small_images_by_whole_pixels():
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 10, 10, 3), dtype=np.uint8)
    grid = tiled(images)
    assert grid.shape == (2 * 160 + 4, 3 * 160 + 8, 3)
    assert grid[170, 170].tolist() == [4] * 3  # the fifth: second row, second column
    assert grid[-1, -1].tolist() == [255] * 3  # the sixth place is empty


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1.5}, "seed: expected a whole number from 0 to 2147483647, got 1.5"),
        ({"seed": -1}, "seed: expected a whole number from 0"),
        ({"seed": None}, "seed: expected a whole number from 0 to 2147483647, got None"),
        ({"images": 26}, "images: expected a whole number from 1 to 25, got 26"),
        ({"chosen": []}, "samplers: expected some of one step, two steps, teacher, got none"),
        ({"chosen": ["seven steps"]}, r"samplers: expected some of .*, got \['seven steps'\]"),
        ({"wanted": "sock"}, "no class 'sock' in toy"),
    ],
)
def test_wrong_wishes_in_one_line(change: dict[str, Any], message: str):
    wishes = {"wanted": "hat", "seed": 0, "images": 1, "chosen": ["one step"]} | change
    with pytest.raises(DDError, match=message) as caught:
        draw(tiny_model("llamagen"), **wishes)
    assert "\n" not in str(caught.value)


def test_prompts_of_no_letters_and_of_too_many(tiny_encoder):
    for prompt, message in (("a" * 10_000, r"at most 1,000 letters, got 10,000: shorten it"), (" ", "got none")):
        with pytest.raises(DDError, match=message):
            draw(tiny_model("text"), prompt, 0, 1, ["one step"])


def test_without_teacher_or_second_step():
    model = tiny_model("llamagen")
    assert list(samplers(replace(model, timesteps=(0,)))) == ["one step", "teacher"]
    assert list(samplers(replace(model, student=None))) == ["teacher"]


def test_a_taken_port_in_one_line(monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = CliRunner().invoke(command, ["app", "toy", "--port", str(port)])
    assert isinstance(done.exception, DDError)
    assert str(done.exception).startswith(f"app: cannot open port {port} of 127.0.0.1 (")
    assert str(done.exception).endswith("name another --port")
    with pytest.raises(DDError, match="expected a port from 1 to 65535, got 70000"):
        app.check_port("127.0.0.1", 70_000)


def test_an_export_is_a_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """app.py runs with nothing but the folder; the card's head and the requirements name what a Space installs."""
    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    folder = tmp_path / "space"
    export(tiny_model("llamagen"), folder, teacher=True)
    started: list[Any] = []
    monkeypatch.setattr(app, "launch", started.append)
    runpy.run_path(str(folder / "app.py"), run_name="__main__")
    assert list(samplers(started[0])) == ALL
    head = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
    assert (head["sdk"], head["app_file"]) == ("gradio", "app.py")
    pinned = (ROOT / "constraints.txt").read_text().splitlines()
    assert f"gradio=={head['sdk_version']}" in pinned
    lines = (folder / "requirements.txt").read_text().splitlines()
    assert lines[1:] == [f"./dd-{dd.__version__}-py3-none-any.whl[app]", f"gradio=={head['sdk_version']}"]


# -------------------------------------------------------------------------------------------------------- served


@pytest.fixture(scope="module")
def served() -> Iterator[str]:
    """The page of a tiny model on a free port of loopback."""
    pytest.importorskip("gradio", reason='the extra "app" is not installed')
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    page = app.launch(tiny_model("llamagen"), port, wait=False)
    yield f"http://127.0.0.1:{port}/"
    with suppress(Exception):
        page.close()


def test_a_client_draws(served: str, tmp_path: Path):
    from gradio_client import Client
    from gradio_client.exceptions import AppError

    client = Client(served, verbose=False, download_files=str(tmp_path))
    *shown, slider, download = client.predict("shoe", 3, 4, ALL, api_name="/draw")
    captions, grids = shown[::2], shown[1::2]
    model = tiny_model("llamagen")
    for grid, steps in zip(grids, (1, 2, "teacher"), strict=True):
        shown = np.asarray(Image.open(grid["value"]["path"] if isinstance(grid["value"], dict) else grid["value"]))
        assert np.array_equal(shown[..., :3], tiled(model.sample("shoe", n=4, steps=steps, seed=3)))
    assert slider["visible"]
    assert all(" 4 images in " in caption for caption in captions)
    assert download["value"].endswith("toy-seed-3.png")
    with pytest.raises(AppError, match="seed: expected a whole number from 0"):
        client.predict("shoe", -1, 4, ALL, api_name="/draw")


def test_the_page_asks_nobody_else(served: str):
    import httpx

    answer = httpx.get(served)
    assert answer.headers["content-security-policy"] == app.POLICY
    config = json.loads(httpx.get(f"{served}config").text)
    assert config["analytics_enabled"] is False
    sheet = httpx.get(f"{served}theme.css").text
    assert "http" not in sheet.replace("http://www.w3.org", "")
    assert served.startswith("http://127.0.0.1:")


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs headless Chromium")
def test_in_a_browser(served: str, tmp_path: Path):
    """A picture appears, times are shown, and nothing was asked of another host."""
    with Browser(tmp_path) as browser:
        browser.open(served)
        browser.until("document.querySelector('#draw') !== null")
        browser.run("document.querySelector('#draw').click()")
        loaded = "[0, 1, 2].every(i => document.querySelector(`#grid-${i} img`)?.naturalWidth > 400)"
        browser.until(loaded)
        assert re.search(
            r"one step: 9 images in \d+\.\d\d s", browser.run("document.querySelector('#caption-0').innerText")
        )
        assert browser.run("document.querySelectorAll('#slider img').length") == 2
        assert browser.run("document.querySelector('#download').tagName !== ''")
        assert {host for host in browser.hosts() if host} == {served.split("/")[2]}
