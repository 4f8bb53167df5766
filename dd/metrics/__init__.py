"""Evaluation: extractors, metrics, protocols and references."""
