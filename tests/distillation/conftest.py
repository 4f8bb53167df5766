"""A tiny teacher of each family, and its pairs."""

from tests.helpers.small.training import family, pairs, teacher

__all__ = ["family", "pairs", "teacher"]
