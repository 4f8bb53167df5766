"""Idea 3: the student's losses and its training."""
