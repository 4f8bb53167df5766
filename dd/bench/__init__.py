"""`dd-cli bench`: what the map, the pairs, training, sampling and the metrics cost."""
