"""`dd-cli zoo list | fetch | verify | show | import`: named teachers, students and their files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dd.errors import DDError

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
    experiment: Annotated[str | None, typer.Option("--for", help="Everything that this experiment lacks.")] = None,
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


@app.command("import")
def import_checkpoint(
    name: Annotated[str, typer.Argument(help="Name of the new entry.")],
    family: Annotated[str, typer.Option(help="Family whose training script wrote it: var or llamagen.")],
    weights: Annotated[Path, typer.Option(help="The transformer: .pth, .pt, .safetensors or an index of its shards.")],
    tokenizer: Annotated[
        Path | None, typer.Option(help="The tokenizer. [default: in the same file, else the official one]")
    ] = None,
    nesting: Annotated[
        str | None,
        typer.Option(help="Key of the state dict in the file, such as model or trainer.var_wo_ddp. [default: found]"),
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Number of classes, or a file with their names, one per line. [default: numbers]")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="What the tensors do not tell: n_head=12, block_size=576; repeat for several."),
    ] = None,
    text_encoder: Annotated[str, typer.Option(help="Encoder of a text-to-image teacher.")] = "google/flan-t5-xl",
    licence: Annotated[str, typer.Option(help="Licence of the weights.")] = "not stated",
) -> None:
    """Add a checkpoint that you trained with the scripts of VAR or LlamaGen to the zoo."""
    from dd.checkpoints import imports

    for line in imports.import_teacher(
        name,
        family,
        weights.expanduser(),
        tokenizer.expanduser() if tokenizer else None,
        nesting,
        parse_classes(classes),
        dict(map(parse_setting, settings or [])),
        licence,
        text_encoder,
    ):
        typer.echo(line)
    typer.echo(f"an experiment with it: dd-cli experiment add PRESET --as NAME --teacher {name}")


def parse_classes(text: str | None) -> tuple[str, ...] | None:
    """`10` or a file of names. Raises DDError."""
    if text is None:
        return None
    if text.isdigit():
        return tuple(map(str, range(int(text))))
    try:
        return tuple(line.strip() for line in Path(text).read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise DDError(f"--classes: expected a number, or a file with one name a line, got '{text}' ({error})") from None


def parse_setting(text: str) -> tuple[str, object]:
    """`block_size=576`, `patch_nums=1,2,3`. Raises DDError."""
    key, _, value = text.partition("=")
    try:
        numbers = [int(part) for part in value.split(",")]
    except ValueError:
        raise DDError(f"--set: expected KEY=NUMBER or KEY=NUMBER,NUMBER,..., got '{text}'") from None
    return key, numbers if "," in value else numbers[0]


@app.command()
def verify(name: Name) -> None:
    """Check an entry's local files against their recorded SHA-256, without any network."""
    from dd.checkpoints import zoo

    for path in zoo.verify(name):
        typer.echo(f"ok {path}")


@app.command()
def show(name: Name) -> None:
    """Print all details of an entry, as YAML."""
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
