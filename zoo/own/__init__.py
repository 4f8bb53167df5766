"""`dd-cli images`: a folder of pictures, from a first look to samples and a table, in one command."""
