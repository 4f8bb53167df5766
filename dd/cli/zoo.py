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

    rows = [
        {
            "name": name,
            "kind": entry.kind,
            "size": entry.file.size_text(),
            "licence": entry.licence,
            "from": "zoo/" if entry.shipped else entry.file.repo or "",
            "here": "yes" if _is_here(entry) else "",
        }
        for name, entry in zoo.entries().items()
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
def fetch(name: Name) -> None:
    """Download an entry and what it needs (a teacher's tokenizer, a student's teacher), checked by SHA-256."""
    import logging

    from dd.checkpoints import zoo

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
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

    entry = zoo.entry(name)
    data = entry.model_dump(mode="json", exclude_defaults=True)
    data["here"] = _is_here(entry)
    if entry.file.repo:
        file = entry.file.hub_file()
        record = hub.recorded(file)
        data["recorded"] = vars(record) if record else "nothing yet: the first fetch records revision and SHA-256"
        data["place"] = str(hub.local_path(file))
    typer.echo(yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120).rstrip())


def _is_here(entry: object) -> bool:
    """Whether an entry's files are on this machine (their content is not read)."""
    from dd.checkpoints import hub, zoo

    assert isinstance(entry, zoo.Entry)
    folder = zoo.index_file().parent
    return all((hub.local_path(f.hub_file()) if f.repo else folder / f.path).is_file() for f in entry.files())
