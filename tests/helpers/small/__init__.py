"""Small projects, models, shards and runs."""
