"""`dd-cli shards info | verify`: what a folder of trajectories holds, and whether every byte is as recorded."""

from __future__ import annotations

import json as json_module
import time
from typing import Annotated

import typer

app = typer.Typer(help="Trajectory shards: the (noise, tokens) pairs of an experiment.", no_args_is_help=True)
Folder = Annotated[str, typer.Argument(metavar="DIR", help="data/EXPERIMENT/trajectories, or any fsspec URL.")]


@app.command()
def info(folder: Folder, json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Show pairs, size, teacher, filters and solver, from the manifest alone."""
    from dataclasses import asdict

    from dd.trajectories.reader import open_shards

    manifest = open_shards(folder, verify=False).manifest
    plan, records = manifest.plan, manifest.records
    total = sum(record.bytes for record in records)
    rows = sum(record.rows for record in records)
    facts = {
        "pairs": plan.pairs,
        "held_out": plan.held_out,
        "shards": len(records),
        "bytes": total,
        "bytes_per_pair": round(total / rows, 1),
        "evaluations_per_token": round(sum(r.evaluations * r.rows for r in records) / rows, 2),
        "fingerprint": plan.fingerprint,
        **{key: value for key, value in asdict(plan).items() if key not in ("pairs", "held_out")},
    }
    if json:
        typer.echo(json_module.dumps(facts, indent=1))
        return
    for key, value in facts.items():
        text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        typer.echo(f"{key.replace('_', ' '):<22} {text}")


@app.command()
def verify(folder: Folder) -> None:
    """Hash every shard against the manifest; a missing or damaged one is named (exit status 2)."""
    from dd.trajectories.reader import open_shards

    started = time.perf_counter()
    records = open_shards(folder).manifest.records
    seconds = time.perf_counter() - started
    rows, size = sum(record.rows for record in records), sum(record.bytes for record in records)
    typer.echo(f"ok: {len(records)} shards, {rows} pairs, {size / 1e6:.1f} MB, as recorded ({seconds:.1f} s)")
