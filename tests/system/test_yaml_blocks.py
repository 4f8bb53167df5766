"""Entries go in and come out of YAML text, and nothing else changes."""

import pytest
import yaml

from dd.errors import DDError
from dd.system.yaml_blocks import insert, remove
from tests.helpers.paths import ROOT

TEXT = """# head
first: {}   # none yet

second: # some
  a: 1 # one

  # two lines
  b:
    c: [1, 2]

# about the third
third:
"""


@pytest.mark.parametrize("section", ["first", "second", "third"])
def test_in_and_out_again_is_the_same_text(section):
    longer = insert(TEXT, section, "x: # mine\n  y: 1\n  # more\n  z: {q: 2}\n", "a.yaml")
    before, after = yaml.safe_load(TEXT), yaml.safe_load(longer)
    assert after[section]["x"] == {"y": 1, "z": {"q": 2}}
    assert {**after, section: None} == {**before, section: None}
    for comment in ("# head", "# one", "# two lines", "# about the third", "# mine", "# more"):
        assert comment in longer
    again = insert(longer, section, "w: 3\n", "a.yaml")
    assert list(yaml.safe_load(again)[section])[-2:] == ["x", "w"]
    both = remove(remove(again, section, "x"), section, "w")
    assert yaml.safe_load(both)[section] == (before[section] or {})
    if section == "second":
        assert both == TEXT
        assert remove(longer, section, "x") == TEXT


def test_removing_the_first_and_the_last():
    assert yaml.safe_load(remove(TEXT, "second", "a"))["second"] == {"b": {"c": [1, 2]}}
    assert yaml.safe_load(remove(TEXT, "second", "b"))["second"] == {"a": 1}
    assert remove(TEXT, "second", "nobody") == TEXT
    assert remove(TEXT, "first", "x") == TEXT


def test_a_lock_file():
    text = (ROOT / "dvc.lock").read_text(encoding="utf-8")
    expected = yaml.safe_load(text)
    del expected["stages"]["distill@var-fashion"]
    assert yaml.safe_load(remove(text, "stages", "distill@var-fashion")) == expected


def test_other_forms_are_refused():
    with pytest.raises(DDError, match=r"a\.yaml: expected a block of first under `first:`, found another form"):
        insert("first: {a: 1}\n", "first", "b: 2\n", "a.yaml")
    with pytest.raises(DDError, match="expected a block of second"):
        insert("first: {}\n", "second", "b: 2\n", "a.yaml")
