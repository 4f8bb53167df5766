"""dd-cli zoo: list, show, fetch, verify, and what an import takes."""

import json
import subprocess
import sys

import pytest
import yaml
from huggingface_hub import constants

from dd.checkpoints import hub
from dd.cli.zoo import parse_classes, parse_setting
from dd.errors import DDError
from tests.helpers.hub_server import COMMIT, Hub


def test_zoo_commands(project, cli, monkeypatch):
    content = b"PK\x03\x04 not really" * 1000
    server = Hub({"FoundationVision/var/var_d16.pth": content, "FoundationVision/var/vae_ch160v4096z32.pth": b"x"})
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # read from the environment when it was imported
    monkeypatch.setattr(hub, "_hub_cache", lambda _: None)
    before = {row["name"]: row for row in json.loads(cli("zoo", "list", "--json").output)}
    assert before["var-d16"]["here"] == ""
    assert "nothing yet" in cli("zoo", "show", "var-d16").output
    server.faults = ["drop:100", "503"]
    result = cli("zoo", "fetch", "var-d16")
    assert result.exit_code == 0, repr(result.exception)
    fetched = result.output
    assert "var_d16.pth" in fetched
    assert "vae_ch160v4096z32.pth" in fetched
    assert "ok " in cli("zoo", "verify", "var-d16").output
    shown = yaml.safe_load(cli("zoo", "show", "var-d16").output)
    assert (shown["here"], shown["recorded"]["revision"]) == (True, COMMIT)
    assert "var-d16" in cli("zoo", "list").output
    result = cli("zoo", "verify", "var-d20")
    assert isinstance(result.exception, DDError)
    server.close()


def test_these_commands_start_without_torch():
    code = "import sys; import dd.cli.zoo, dd.cli.doctor; from dd.checkpoints import zoo; zoo.entries();"
    subprocess.run([sys.executable, "-c", code + "assert 'torch' not in sys.modules"], check=True)


def test_settings_and_classes_of_an_import(project):
    assert parse_setting("block_size=576") == ("block_size", 576)
    assert parse_setting("patch_nums=1,2,3") == ("patch_nums", [1, 2, 3])
    with pytest.raises(DDError, match="--set: expected KEY=NUMBER"):
        parse_setting("block_size")
    (project / "names.txt").write_text("cat\n\ndog\n")
    assert parse_classes(str(project / "names.txt")) == ("cat", "dog")
    assert parse_classes("3") == ("0", "1", "2")
    with pytest.raises(DDError, match="--classes: expected a number, or a file"):
        parse_classes("nowhere.txt")
