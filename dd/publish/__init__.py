"""Distilled models for others: as a folder, as a repository of the Hugging Face hub, as a diffusers pipeline."""
