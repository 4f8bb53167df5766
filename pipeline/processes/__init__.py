"""Commands in process groups of their own, that end with whoever asked for them."""
