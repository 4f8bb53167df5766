"""Commands for runs at paper scale."""
