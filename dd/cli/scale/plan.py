"""`dd-cli plan`: hours, memory, disk and cost of an experiment or preset on a card, with the arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from dd.config import Experiment
    from dd.presets.cost import StageCost

GB = 1e9


def plan(
    name: Annotated[str, typer.Argument(help="An experiment of params.yaml, or a preset.")],
    device: Annotated[str, typer.Option(help="h100, h200, a100, l40s or rtx4090.")] = "h100",
    count: Annotated[int, typer.Option(min=1, help="Number of GPUs.")] = 1,
    price: Annotated[float, typer.Option(min=0, help="Price of one GPU for an hour, in any currency.")] = 0.0,
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Estimate hours, memory, disk and cost of each stage; rates that a stage has measured replace the estimates."""
    from dd.config import project_root
    from dd.presets.cost import stage_costs
    from dd.presets.devices import card
    from dd.presets.needs import disk_parts
    from dd.presets.rates import measured_rates

    chosen, experiment = card(device), find(name)
    measured = measured_rates(project_root(), name, experiment, chosen)
    costs = stage_costs(experiment, chosen, count, measured)
    disk = disk_parts(experiment)
    rows = [row(cost, count, price, disk.get(cost.stage, 0)) for cost in costs]
    if json:
        import json as json_module

        content = {"name": name, "device": chosen.title, "count": count, "price": price, "stages": rows}
        content |= {"hours": sum(r["hours"] for r in rows), "disk_bytes": sum(disk.values())}
        typer.echo(json_module.dumps(content, indent=1))
        return
    _print(f"{name} on {count} x {chosen.title}", rows, chosen.memory, sum(disk.values()))


def find(name: str) -> Experiment:
    """An experiment of params.yaml or, under the same name, a preset. Raises DDError for neither."""
    from dd.config import load_experiment, load_params
    from dd.presets import preset_experiment, preset_names

    if name in load_params().experiments or name not in preset_names():
        return load_experiment(name)
    return preset_experiment(name)


def row(cost: StageCost, count: int, price: float, disk: int) -> dict[str, Any]:
    """One stage as plain values. memory_bytes: of one card."""
    arithmetic = [f"{term.name}: {term.arithmetic} = {_time(term.seconds)}" for term in cost.terms]
    arithmetic += [f"or, if longer, {t.name}: {t.arithmetic} = {_time(t.seconds)}" for t in cost.overlapped]
    if cost.measured:
        arithmetic.append(f"measured by the stage itself: {cost.measured:.4g} {cost.unit}/s, which counts")
    return {
        "stage": cost.stage,
        "units": cost.units,
        "unit": cost.unit,
        "seconds_per_unit": cost.seconds_a_unit,
        "measured_per_second": cost.measured,
        "hours": cost.hours,
        "cost": cost.hours * count * price if price else None,
        "memory_bytes": cost.memory,
        "disk_bytes": disk,
        "arithmetic": arithmetic,
    }


def _print(title: str, rows: list[dict[str, Any]], memory: float, disk: int) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Column, Table

    numbers = [Column(name, justify="right") for name in ("units", "each", "hours", "memory a card", "disk", "cost")]
    table = Table(Column("stage", no_wrap=True), *numbers, title=title, box=SIMPLE_HEAD)
    for r in rows:
        over = " (too much)" if r["memory_bytes"] > memory else ""
        each = 1 / r["measured_per_second"] if r["measured_per_second"] else r["seconds_per_unit"]
        table.add_row(
            r["stage"],
            f"{r['units']:,.0f} {r['unit']}",
            _time(each),
            f"{r['hours']:,.1f}",
            f"{r['memory_bytes'] / GB:,.0f} GB{over}",
            f"{r['disk_bytes'] / GB:,.1f} GB",
            "" if r["cost"] is None else f"{r['cost']:,.0f}",
        )
    total = None if rows[0]["cost"] is None else sum(r["cost"] for r in rows)
    hours = f"{sum(r['hours'] for r in rows):,.1f}"
    table.add_row("all", "", "", hours, "", f"{disk / GB:,.1f} GB", "" if total is None else f"{total:,.0f}")
    console = Console()
    console.print(table)
    for r in rows:
        console.print(f"[bold]{r['stage']}[/], one of {r['units']:,.0f} {r['unit']}:")
        for line in r["arithmetic"]:
            console.print(f"  {line}", highlight=False)
    console.print("Estimates, within a factor of two, until a stage has run for a minute on such a card.")


def _time(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{1e3 * seconds:.2f} ms" if seconds >= 1e-3 else f"{1e6 * seconds:.0f} us"
