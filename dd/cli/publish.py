"""`dd-cli export`, `push` and `app`: a distilled model as a folder, as a repository of the hub, and as a page."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from dd.errors import DDError

NAME = "An experiment of params.yaml, or a student of 'dd-cli zoo list'."


def export(
    name: Annotated[str, typer.Argument(help=NAME)],
    folder: Annotated[Path, typer.Argument(help="A new or empty folder, or an older export.")],
    teacher: Annotated[bool, typer.Option("--teacher", help="Include the teacher's weights.")] = False,
    prompts: Annotated[
        list[str] | None,
        typer.Option("--prompt", help="Caption for samples.png of a text-to-image model; repeat for several."),
    ] = None,
) -> None:
    """Write a distilled model as a folder for dd.load, diffusers and the hub, with its model card."""
    from dd.api import load
    from dd.publish.export import export as write

    write(load(name), folder, teacher, prompts or ())
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    typer.echo(f"wrote {folder}: {len(files)} files, {size / 1e6:.1f} MB")


def push(
    name: Annotated[str, typer.Argument(help=NAME + " Or a folder of 'dd-cli export'.")],
    repository: Annotated[str, typer.Argument(help="owner/name on the hub; created if it does not exist.")],
    private: Annotated[bool, typer.Option("--private", help="Create it as private, if it is new.")] = False,
    teacher: Annotated[bool, typer.Option("--teacher", help="Include the teacher's weights.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the files; send nothing.")] = False,
) -> None:
    """Publish a distilled model on the Hugging Face hub, as one commit."""
    from dd.api import load
    from dd.publish.export import export as write
    from dd.publish.push import check_repository, plan
    from dd.publish.push import push as send

    check_repository(repository)
    with tempfile.TemporaryDirectory(prefix="dd-push-") as scratch:
        folder = Path(name)
        if not folder.is_dir():
            folder = Path(scratch) / "model"
            write(load(name), folder, teacher, address=repository)
        elif teacher:
            raise DDError("--teacher: a folder is sent as it is; leave it out")
        for upload in plan(folder):
            typer.echo(f"{upload.size / 1e6:10.3f} MB  {upload.name}")
        if dry_run:
            typer.echo(f"nothing was sent to {repository}")
        else:
            typer.echo(f"committed: {send(folder, repository, private)}")


def app(
    name: Annotated[str, typer.Argument(help=NAME + " Or a folder of 'dd-cli export', or owner/name on the hub.")],
    port: Annotated[int, typer.Option(help="Port of the page.")] = 7860,
    host: Annotated[
        str, typer.Option(help="127.0.0.1: this machine only; 0.0.0.0: reachable from others.")
    ] = "127.0.0.1",
) -> None:
    """Open a demo page: class or prompt, seed, steps; the same noise side by side (extra `app`)."""
    from dd.api import load
    from dd.publish.app import check_port, launch

    check_port(host, port)
    model = load(name)
    typer.echo(f"http://{host}:{port}   stop with Ctrl-C")
    launch(model, port, host)
