"""Teachers, students and tokenizers of all families, and what they share."""
