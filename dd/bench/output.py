"""What every bench of the map and the shards does with its figures: a table, or JSON and a file in results/bench/."""

from __future__ import annotations

import json
import os
import platform
import sys
from datetime import UTC, datetime
from typing import Any

import typer

from dd.system.machine import instructions, processor


def report(name: str, rows: list[dict[str, Any]], as_json: bool) -> None:
    """Print rows as a table, or as a JSON list that also goes to results/bench/<name>.json with machine and command."""
    if as_json:
        from dd.config import project_root
        from dd.system.files import write_text

        found = {**header(), "rows": rows}
        write_text(project_root() / "results" / "bench" / f"{name}.json", json.dumps(found, indent=1) + "\n")
        typer.echo(json.dumps(rows, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*(key.replace("_", " ") for key in rows[0]))
    for row in rows:
        table.add_row(*("-" if v is None else f"{v:.5g}" if isinstance(v, float) else str(v) for v in row.values()))
    Console().print(table)


def header() -> dict[str, Any]:
    """What every file of figures says first: command, date (UTC) and machine."""
    return {"command": command(), "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", "machine": machine()}


def command() -> str:
    """The present command, without paths."""
    return " ".join(["dd-cli", *sys.argv[1:]])


def machine() -> dict[str, Any]:
    """Processor, cores, threads, accelerator and versions."""
    import torch

    return {
        "processor": processor(),
        "instructions": instructions(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
