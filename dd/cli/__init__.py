"""One module per command of dd-cli. They import torch, pandas and the like inside functions: help must be quick."""
