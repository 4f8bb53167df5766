"""dd-cli doctor: what this machine and project lack, and the command that mends it."""

import json

import pytest
import torch

from dd.cli import doctor
from dd.system import device, git


def test_doctor(project, cli):
    result = cli("doctor", "--json")
    found = {item["what"]: item for item in json.loads(result.output)}
    assert found["torch"]["state"] == "ok"
    assert found["params.yaml"]["found"] == "1 experiments"
    assert (found["git repository"]["state"], found["git repository"]["do"]) == ("missing", git.START)
    assert found["dvc repository"]["do"] == "dvc init"
    assert found["zoo llamagen-b"]["do"] == "dd-cli zoo fetch llamagen-b"
    assert result.exit_code == 1
    assert "dvc init" in cli("doctor").output
    (project / "params.yaml").write_text("experiments: 3\n")
    assert "correct it" in cli("doctor").output


def test_doctor_names_the_remote_of_dvc(project, cli):
    """A fresh clone has none: what `dvc pull` lists as missing is no fault."""

    def found() -> dict[str, str]:
        return {item["what"]: item for item in json.loads(cli("doctor", "--json").output)}.get("dvc remote")

    assert found() is None  # without DVC that is not the question
    (project / ".dvc").mkdir()
    assert (found()["state"], found()["do"]) == ("note", "docs/team.md")
    assert found()["found"] == "none: nothing for `dvc pull`; what git holds is enough to begin"
    (project / ".dvc" / "config").write_text("[core]\n    remote = team\n['remote \"team\"']\n    url = s3://here/%d\n")
    assert (found()["state"], found()["found"]) == ("ok", "team")


def test_doctor_says_which_driver_the_build_wants(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setattr(device, "nvidia_smi", lambda query: ["470.82.01" if "driver" in query else "Tesla, 16 GB"])
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = {one.what: one for one in doctor.accelerator(tmp_path)}
    assert found["accelerator"].found == "Tesla, 16 GB"
    assert found["driver"].state == "missing"
    assert "built for CUDA 12.8: wants driver 525.60.13 or later" in found["driver"].found
    assert "driver 470.82.01 is too old" in found["driver"].do
    assert "matrix product" not in found
