"""Experiments beyond the demo (paper scale; long runs of the small ones), ready to be copied into params.yaml.

One YAML file each, comments included.
Adding is an insertion of text: not a byte of what the user has written changes. The result is validated before it is
written.
"""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from dd.checkpoints import zoo
from dd.config import Experiment, validate
from dd.errors import DDError
from dd.presets.rehearsal import rehearsal
from dd.system import yaml_blocks
from dd.system.files import write_text
from dd.system.names import hint, name_fault

FOLDER = Path(__file__).parent


def preset_names() -> list[str]:
    """All presets."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def preset_text(name: str) -> str:
    """A preset's YAML: comments, then one key with the experiment below it. Raises DDError that offers near names."""
    names = preset_names()
    if name not in names:
        raise DDError(f"no preset '{name}'; {hint(name, names)}")
    return (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")


def preset_experiment(name: str) -> Experiment:
    """A preset, validated."""
    return validate({"experiments": yaml.safe_load(preset_text(name))}, f"preset {name}").experiments[name]


def describe(name: str) -> str:
    """A preset's first comment line."""
    first = preset_text(name).splitlines()[0]
    return first.removeprefix("# ") if first.startswith("#") else ""


def add_experiment(
    params: Path, preset: str, name: str | None = None, rehearse: bool = False, teacher: str | None = None
) -> str:
    """Copy a preset into params.yaml, under its own or another name; returns that name.

    teacher: an entry of the zoo that takes the place of the preset's. rehearse: cut down to what runs anywhere in
    minutes (`dd.presets.rehearsal`), as NAME-rehearsal.
    Raises DDError if the name is taken or the file is not a params.yaml; the file is then as it was.
    """
    name = name or (f"{preset}-rehearsal" if rehearse else preset)
    if fault := name_fault(name):
        raise DDError(f"experiment name: {fault}; got {name!r}")
    added = re.sub(rf"^{re.escape(preset)}:", f"{name}:", preset_text(preset), flags=re.M)
    if teacher is not None:
        added = re.sub(r"(?m)^(  teacher:[^\n]*\n(?:    [^\n]*\n)*?    name: )\S+", rf"\g<1>{teacher}", added, count=1)
        if yaml.safe_load(added)[name]["teacher"]["name"] != zoo.entry(teacher, "teacher").name:
            raise DDError(f"preset {preset}: cannot find where its teacher is named; write the experiment by hand")
        _refuse_other_family(preset, yaml.safe_load(added)[name]["family"], teacher)
    if rehearse:
        cut = rehearsal(yaml.safe_load(added)[name])
        note = f"# A rehearsal of the preset {preset}: full width, random weights, numbers that mean nothing.\n"
        added = note + yaml.safe_dump({name: cut}, sort_keys=False, default_flow_style=None, width=120)
    try:
        text = params.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DDError(f"expected {params.name} in {params.parent}, found none; run from the project's folder") from None
    before = validate(_load(text, params), params.name)
    if name in before.experiments:
        raise DDError(f"params.yaml has an experiment '{name}' already: use --as to give another name")
    merged = insert(text, added, params)
    after = validate(_load(merged, params), params.name)
    if set(after.experiments) != {*before.experiments, name}:
        raise DDError(
            f"{params.name}: cannot find where `experiments` ends; write it as a block and add the preset there"
        )
    write_text(params, merged)
    return name


def _refuse_other_family(preset: str, family: str, teacher: str) -> None:
    if (found := zoo.entry(teacher, "teacher").family) != family:
        raise DDError(
            f"preset {preset} is of family {family}, teacher '{teacher}' of family {found}: choose another preset"
        )


def insert(text: str, added: str, path: Path) -> str:
    """`text` of a params.yaml with `added` at the end of its `experiments`, indented as they are."""
    return yaml_blocks.insert(text, "experiments", added, path.name)


def _load(text: str, path: Path) -> object:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise DDError(f"{path.name}: not valid YAML ({' '.join(str(error).split())})") from None
