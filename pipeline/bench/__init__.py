"""What a run costs beyond DVC itself: `python -m pipeline.bench.overhead`."""
