"""`dd-cli zoo list | fetch | verify | show`: named teachers, students and their files."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(help="Teachers, students and their files: shipped here or on the hub.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="An entry of 'dd-cli zoo list'.")]


@app.command("list")
def list_entries(
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Show every entry: kind, size, licence, and where its file is."""
    from dd.checkpoints import zoo
    from dd.checkpoints.assets import ASSETS

    rows = [
        {
            "name": name,
            "kind": entry.kind,
            "size": entry.file.size_text(),
            "licence": entry.licence,
            "from": "zoo/" if entry.shipped else entry.file.repo or "",
            "here": "yes" if zoo.is_here(entry) else "",
        }
        for name, entry in zoo.entries().items()
    ]
    rows += [
        {
            "name": asset.name,
            "kind": asset.kind,
            "size": f"{asset.megabytes} MB",
            "licence": asset.licence,
            "from": asset.url.split("/")[2],
            "here": "yes" if asset.here() else "",
        }
        for asset in ASSETS.values()
    ]
    if json:
        import json as json_module

        typer.echo(json_module.dumps(rows, indent=1))
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Column, Table

    table = Table(*(Column(key, no_wrap=key in ("name", "size")) for key in rows[0]), box=SIMPLE_HEAD)
    for row in rows:
        table.add_row(*row.values())
    Console().print(table)


@app.command()
def fetch(
    names: Annotated[list[str] | None, typer.Argument(help="Entries of 'dd-cli zoo list'.")] = None,
    experiment: Annotated[str | None, typer.Option("--for", help="All that this experiment still lacks.")] = None,
) -> None:
    """Download entries and what they need (a teacher's tokenizer, a student's teacher), checked by SHA-256."""
    import logging

    from dd.checkpoints import zoo

    wanted = list(names or [])
    if experiment is not None:
        from dd.config import load_experiment, project_root
        from dd.presets.needs import needs

        lacking = needs(load_experiment(experiment), project_root())
        wanted += [need.fetch for need in lacking if need.fetch and need.fetch not in wanted]
    if not wanted:
        raise typer.BadParameter("expected names of 'dd-cli zoo list', or --for EXPERIMENT")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    for name in wanted:
        for path in zoo.fetch(name):
            typer.echo(str(path))


@app.command()
def verify(name: Name) -> None:
    """Check an entry's local files against their recorded SHA-256, without any network."""
    from dd.checkpoints import zoo

    for path in zoo.verify(name):
        typer.echo(f"ok {path}")


@app.command()
def show(name: Name) -> None:
    """Print everything that is known about an entry, as YAML."""
    import yaml

    from dd.checkpoints import hub, zoo
    from dd.checkpoints.assets import ASSETS

    if name in ASSETS:
        asset = ASSETS[name]
        data = {**vars(asset), "here": asset.here(), "place": str(asset.path())}
        typer.echo(yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120).rstrip())
        return
    entry = zoo.entry(name)
    data = entry.model_dump(mode="json", exclude_defaults=True)
    data["here"] = zoo.is_here(entry)
    if entry.file.repo:
        file = entry.file.hub_file()
        record = hub.recorded(file)
        data["recorded"] = vars(record) if record else "nothing yet: the first fetch records revision and SHA-256"
        data["place"] = str(hub.local_path(file))
    typer.echo(yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120).rstrip())
