"""Parity with the official networks: stored inputs and outputs of theirs against ours.

    python -m tests.parity FOLDER [--json]

FOLDER holds README.json (sizes, tensors, notes) and safetensors files, see its `_about`. Nothing here knows a size;
all of them are read from README.json.
"""
