"""Distilled Decoding: image autoregressive models as one- and two-step generators (arXiv 2412.17153)."""

__version__ = "0.1.0"
