"""Captions and the encoders that text-to-image teachers read them by."""
