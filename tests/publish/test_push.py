"""Pushes to a hub on loopback: one commit, loaded back bit for bit, and every refusal in one line."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

import dd
from dd.checkpoints import hub
from dd.cli.main import app
from dd.errors import DDError, TemporaryError
from dd.publish import export as exporting
from dd.publish.push import plan, push
from tests.helpers.push_server import PushHub
from tests.helpers.tiny_models import tiny_model
from tests.helpers.toy_project import make_project

REPO = "someone/toy-dd"


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A hub that takes pushes, an empty cache, a token."""
    make_hub = PushHub()
    monkeypatch.setenv("HF_ENDPOINT", make_hub.url)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    monkeypatch.setenv("DD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DD_HUB_LOCK", str(tmp_path / "hub.lock.yaml"))
    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # read from the environment when it was imported
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(hub, "_hub_cache", lambda _: None)
    make_project(tmp_path)
    yield make_hub
    make_hub.close()


@pytest.fixture
def folder(tmp_path):
    exporting.export(tiny_model("llamagen"), tmp_path / "out", address=REPO)
    return tmp_path / "out"


def test_what_was_pushed_is_loaded_bit_for_bit(server, folder):
    address = push(folder, REPO, private=True)
    assert address == f"{server.url}/{REPO}/commit/{server.commit}"
    assert server.repos[REPO]["visibility"] == "private"
    assert len(server.commits) == 1
    assert {name.removeprefix(f"{REPO}/") for name in server.files} == {upload.name for upload in plan(folder)}
    model = dd.load(REPO, "cpu")
    for steps in (1, 2):
        assert np.array_equal(model.sample(n=6, steps=steps), dd.load(str(folder), "cpu").sample(n=6, steps=steps))
        assert np.array_equal(model.sample(n=6, steps=steps), tiny_model("llamagen").sample(n=6, steps=steps))


def test_pushing_again_sends_what_changed_and_removes_what_is_gone(server, folder, tmp_path):
    exporting.export(tiny_model("llamagen"), folder, teacher=True)
    push(folder, REPO)
    server.files[f"{REPO}/notes.md"] = b"the owner's own file"
    before = len(server.puts)
    exporting.export(tiny_model("llamagen"), folder)
    push(folder, REPO)
    assert len(server.puts) == before  # the same tensors; the picture without the teacher's row is new
    names = {name.removeprefix(f"{REPO}/") for name in server.files}
    assert names == {upload.name for upload in plan(folder)} | {"notes.md"}
    assert dd.load(REPO, "cpu").sample("hat").shape == (1, 6, 6, 3)


def test_a_push_that_breaks_leaves_nothing_and_goes_on_later(server, folder):
    server.put_faults = [500] * 100
    with pytest.raises(TemporaryError, match=rf"{REPO} was not committed .*push again, what arrived is not sent twice"):
        push(folder, REPO)
    assert server.files == {}
    server.put_faults = []
    server.refuse = {"/commit/": 500}  # the large files arrive, the commit does not
    with pytest.raises(TemporaryError, match=r"was not committed"):
        push(folder, REPO)
    assert server.files == {}
    server.refuse = {}
    sent = len(server.puts)
    push(folder, REPO)
    assert len(server.puts) == sent  # nothing large went twice
    assert dd.load(REPO, "cpu").classes == ("hat", "shoe", "bag")


def test_a_moment_of_trouble_is_survived(server, folder):
    server.put_faults = [503, 500]
    push(folder, REPO)
    assert len(server.commits) == 1


@pytest.mark.parametrize(
    ("where", "status", "words"),
    [
        ("/repos/create", 401, "answered 401 for someone/toy-dd: log in with `hf auth login`, or set HF_TOKEN"),
        ("/repos/create", 403, "answered 403 .* the token may not write there"),
        ("/commit/", 403, "answered 403 .* the token may not write there"),
        ("/preupload/", 404, "answered 404 .* check the owner's name"),
    ],
)
def test_refusals_name_the_way_out(server, folder, where, status, words):
    server.refuse = {where: status}
    with pytest.raises(DDError, match=words) as error:
        push(folder, REPO)
    assert not isinstance(error.value, TemporaryError)
    assert "\n" not in str(error.value)
    assert server.files == {}


def test_a_card_that_the_hub_refuses(server, folder):
    card = (folder / "README.md").read_text().replace("license: mit\n", "")
    (folder / "README.md").write_text(card)
    with pytest.raises(DDError, match=r'refuses the card.s metadata .*"license" is required.*: mend README.md'):
        push(folder, REPO)
    assert server.puts == []


@pytest.mark.parametrize("name", ["toy", "a/b/c", "some one/x", "/x", "x/", "../x", "x/y z"])
def test_names_that_are_no_repository(server, folder, name):
    with pytest.raises(DDError, match=r"push: expected a repository as owner/name"):
        push(folder, name)
    assert server.repos == {}


def test_folders_that_are_no_export_and_no_network(server, folder, tmp_path, monkeypatch):
    with pytest.raises(DDError, match=r"expected an exported model in .*, model_index.json is missing; run 'dd-cli ex"):
        push(tmp_path / "nothing", REPO)
    (folder / "README.md").unlink()
    with pytest.raises(DDError, match=r"README.md is missing; run 'dd-cli export' first"):
        push(folder, REPO)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DDError, match=r"HF_HUB_OFFLINE is set: unset it"):
        push(folder, REPO)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    server.close()
    with pytest.raises(TemporaryError, match=r"was not committed"):
        push(folder, REPO)


def test_the_command(server, folder, monkeypatch, tmp_path):
    run = CliRunner().invoke
    dry = run(app, ["push", str(folder), REPO, "--dry-run"])
    assert dry.exit_code == 0, dry.output
    assert dry.output.endswith(f"nothing was sent to {REPO}\n")
    assert "transformer/diffusion_pytorch_model.safetensors" in dry.output
    assert server.repos == {}
    monkeypatch.setattr("dd.api.load", lambda name: tiny_model("llamagen"))
    done = run(app, ["push", "toy", REPO])
    assert done.exit_code == 0, done.output
    assert f"committed: {server.url}/{REPO}/commit/" in done.output
    assert f'dd.load("{REPO}")' in server.files[f"{REPO}/README.md"].decode()
    wrong = run(app, ["push", str(folder), REPO, "--teacher"])
    assert isinstance(wrong.exception, DDError)


def test_repositories_that_hold_something_else(server):
    server.files[f"{REPO}/model_index.json"] = json.dumps({"_class_name": "OtherPipeline"}).encode()
    with pytest.raises(DDError, match=rf"{REPO}: expected a model of dd's folder format 1, got another kind of model"):
        dd.load(REPO)
    with pytest.raises(DDError, match=r"answered 404 for someone/none/model_index.json"):
        dd.load("someone/none")


def test_diffusers_fetches_the_same(server, folder, tmp_path):
    """Through huggingface_hub's own cache, in a process that knows the hub from its environment alone."""
    pytest.importorskip("diffusers", reason='the extra "diffusers" is not installed')
    push(folder, REPO)
    code = """
import sys, torch
from dd.publish.pipeline import DDPipeline
drawn = [
    DDPipeline.from_pretrained(place)(["hat", "bag"], num_inference_steps=2, generator=torch.manual_seed(0)).images
    for place in sys.argv[1:]
]
print([a.tobytes() == b.tobytes() for a, b in zip(*drawn)])
"""
    environment = {**os.environ, "HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}
    run = subprocess.run(
        [sys.executable, "-c", code, REPO, str(folder)], env=environment, capture_output=True, text=True, check=False
    )
    assert run.stdout.strip() == "[True, True]", run.stderr
