"""`dd-cli images add | remove`: handed on to the zoo's own pipeline, which the library itself never imports."""

from __future__ import annotations

import importlib.util

import typer

from dd.cli.run import PASS_ON, hand_on
from dd.errors import DDError


def images(context: typer.Context) -> None:
    """Your own folders of images: add NAME FOLDER plans, trains, distils and evaluates; remove NAME undoes it."""
    if importlib.util.find_spec("zoo") is None or importlib.util.find_spec("zoo.own") is None:
        raise DDError("dd-cli images trains networks with zoo/ of the project: run it in a checkout of the repository")
    hand_on("zoo.own", context.args)


def register(app: typer.Typer) -> None:
    """Add the command to dd-cli; all its options belong to the module that it starts."""
    app.command("images", context_settings=PASS_ON)(images)
