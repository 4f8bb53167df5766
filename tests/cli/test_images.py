"""dd-cli images: handed on to the zoo of a checkout, with all its options."""

import pytest

from dd.cli import images
from dd.errors import DDError


def test_all_words_are_handed_on(cli, monkeypatch):
    seen = []
    monkeypatch.setattr(images, "hand_on", lambda module, words: seen.append((module, words)))
    assert cli("images", "add", "cats", "pictures", "--minutes", "5", "-h").exit_code == 0
    assert seen == [("zoo.own", ["add", "cats", "pictures", "--minutes", "5", "-h"])]


def test_outside_a_checkout_it_says_so(cli, monkeypatch):
    monkeypatch.setattr(images.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DDError, match=r"trains networks with zoo/ of the project: run it in a checkout"):
        raise cli("images", "add").exception
