"""Janus-Pro (Chen et al. 2025)."""
