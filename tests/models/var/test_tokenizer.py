"""VAR's tokenizer."""

from dd.models.var.tokenizer import phi_indices


def test_phi_ties_are_float64():
    assert phi_indices(10, 4) == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]
    assert phi_indices(6, 4) == [0, 0, 1, 2, 3, 3]
    assert phi_indices(4, 4) == [0, 1, 2, 3]
    assert phi_indices(5, 4)[2] in (1, 2)
    assert phi_indices(1, 4) == [0]
