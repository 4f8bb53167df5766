"""Idea 1: the noise-to-token map (Distilled Decoding, section 3.2)."""
