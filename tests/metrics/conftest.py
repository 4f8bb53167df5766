"""Fixtures of a toy evaluation."""

from tests.helpers.toy_metrics import evaluation, extractor, few_subsets, folder, reference

__all__ = ["evaluation", "extractor", "few_subsets", "folder", "reference"]
