"""Shared by all tests: few threads (pytest shares its cores), no network, no colours, nothing in the user's folders."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
for name, value in {
    "HF_HUB_OFFLINE": "1",
    "DVC_NO_ANALYTICS": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "NO_COLOR": "1",
    "CI": "1",
    "MPLBACKEND": "agg",
}.items():
    os.environ.setdefault(name, value)
