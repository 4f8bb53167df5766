"""LlamaGen (Sun et al. 2024)."""
