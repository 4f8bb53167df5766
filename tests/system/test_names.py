"""Hints for misspelt names; names that fit files, DVC and every operating system."""

import pytest

from dd.system.names import check_names, file_name, hint, name_fault, near


def test_near_names_in_their_own_spelling():
    assert near("sneker", ["Sneaker", "Bag"]) == ["Sneaker"]
    assert near("komodo dragon", ["Komodo dragon"]) == ["Komodo dragon"]
    assert near("xyz", ["Sneaker"]) == []


def test_hints():
    assert hint("var-fashon", ["var-fashion", "scenes"]) == "did you mean var-fashion?"
    assert hint("q", ["one", "two"]) == "there are one, two"
    assert hint("q", ["one", "two", "three"], listed=["one", "one"]) == "there are one"
    assert hint("q", []) == "there are none"


@pytest.mark.parametrize("name", ["llamagen-fashion", "a", "3d", "My_run-2", "x" * 64])
def test_good_names(name):
    assert name_fault(name) is None


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("v1.5", "up to 64 letters, digits, '-' and '_'"),
        ("a b", "up to 64 letters"),
        ("a@b", "up to 64 letters"),
        ("a/b", "up to 64 letters"),
        ("../x", "up to 64 letters"),
        ("größe", "up to 64 letters"),
        ("-x", "begins with a letter or digit"),
        ("", "up to 64 letters"),
        ("x" * 65, "up to 64 letters"),
        ("2024", "a name with a letter in it"),
        ("report", "a name that is free"),
        ("Bench", "a name that is free"),
        ("NUL", "a name that is free"),
        ("com1", "a name that is free"),
        (True, "put it in quotes"),
        (None, "put it in quotes"),
    ],
)
def test_bad_names(name, why):
    assert why in str(name_fault(name))


def test_names_that_differ_in_case_only():
    assert check_names({"a": 1, "b": 2}) == {"a": 1, "b": 2}
    with pytest.raises(ValueError, match="expected names that differ in more than case, found 'Run' and 'run'"):
        check_names({"Run": 1, "run": 2})


@pytest.mark.parametrize(
    ("label", "name"), [("onestep*", "onestep"), ("dd 0,16", "dd 0,16"), ("a:b/c. ", "abc"), ("*", "_")]
)
def test_labels_as_file_names(label, name):
    assert file_name(label) == name
