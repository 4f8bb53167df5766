"""What every other package stands on: files, threads, precision, progress. Knows nothing of models."""
