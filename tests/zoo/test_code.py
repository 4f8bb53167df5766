"""Digests of the code behind each training of the zoo."""

import json

from dd.config import FAMILIES
from zoo import code


def test_every_stage_has_the_files_that_decide_its_network(tmp_path, monkeypatch):
    monkeypatch.setattr(code, "HERE", tmp_path)
    code.main()
    found = {path.stem: set(json.loads(path.read_text())) for path in (tmp_path / "data" / "code").iterdir()}
    assert found.keys() == set(code.STAGES)
    assert "dd/metrics/classifier.py" in found["extractor"]
    assert not any(file.startswith("dd/models/var/") for file in found["extractor"])
    assert {f"dd/models/{family}/transformer.py" for family in FAMILIES} <= found["teacher"]
    for files in found.values():
        assert not files & {"zoo/settings.py", "dd/models/student.py", "dd/models/var/student.py"}
