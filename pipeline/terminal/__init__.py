"""`dd-cli run` and `dd-cli sweep`: runs from a terminal, with a live table."""
