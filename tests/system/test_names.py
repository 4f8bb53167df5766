"""Hints for misspelt names."""

from dd.system.names import hint, near


def test_near_names_in_their_own_spelling():
    assert near("sneker", ["Sneaker", "Bag"]) == ["Sneaker"]
    assert near("komodo dragon", ["Komodo dragon"]) == ["Komodo dragon"]
    assert near("xyz", ["Sneaker"]) == []


def test_hints():
    assert hint("var-fashon", ["var-fashion", "scenes"]) == "did you mean var-fashion?"
    assert hint("q", ["one", "two"]) == "there are one, two"
    assert hint("q", ["one", "two", "three"], listed=["one", "one"]) == "there are one"
    assert hint("q", []) == "there are none"
