"""Idea 2: the teacher's decoding loop through the map, and the Parquet shards that keep its pairs."""
