"""A distilled model as a folder, which is a repository of the hub too: tensors and settings; reading runs none of it.

    model_index.json            what it is (`Settings`), in the form of diffusers' pipelines
    transformer/                the student: config.json and diffusion_pytorch_model.safetensors
    vqvae/                      the tokenizer, likewise
    teacher/                    the teacher's transformer, if it was asked for
    README.md, samples.png      the model card (`dd.publish.card`)
    app.py, requirements.txt    a page to play with it (`dd.publish.space`), never read by `dd.load`

`DDPipeline.from_pretrained` (`dd.publish.pipeline`) reads the same folder, and writes such a one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dd.checkpoints import hub
from dd.checkpoints.safe import load_tensors, save_tensors
from dd.checkpoints.teachers import frozen, load_strict
from dd.errors import DDError
from dd.models.base import Condition, Filters, Student, Teacher, Tokenizer
from dd.models.registry import build_student, build_teacher, build_tokenizer
from dd.system.files import write_text

FORMAT = 1
INDEX = "model_index.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"
PREFIX = "network."  # of every tensor's name: diffusers' components hold our network under it
COMPONENTS = {"transformer": "StudentModel", "vqvae": "TokenizerModel"}
MODULE = "dd.publish.pipeline"  # where diffusers finds these classes
Locate = Callable[[str], Path]  # a file of the folder by its name in it, fetched if need be


@dataclass(frozen=True)
class Settings:
    """What a folder says of its model beside sizes and weights.

    classes: names by index, empty for text to image. timesteps: the trajectory points that the student was trained on.
    filters, solver: as in `dd.models.base.Filters` and `dd.flow.grid.Solver`. teacher: its name; teacher_weights:
    whether the folder holds it.
    """

    name: str
    family: str
    teacher: str
    licence: str
    classes: tuple[str, ...] = ()
    timesteps: tuple[int, ...] = (0,)
    split: int | None = None
    text_encoder: str | None = None
    filters: Mapping[str, Any] | None = None
    solver: Mapping[str, Any] | None = None
    teacher_weights: bool = False
    format: int = FORMAT

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Settings:
        """From what JSON holds of it, lists for tuples. Raises TypeError for odd names."""
        found: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in data.items()}
        return cls(**found)


@dataclass(frozen=True)
class Exported:
    """A model as it goes into a folder and comes out of it. The teacher may be a `TokenizerOnly`."""

    settings: Settings
    student: Student
    teacher: Teacher

    @property
    def sizes(self) -> dict[str, Any]:
        """Settings of the student's network, as `dd.models.registry.build_student` takes them."""
        options: Any = self.student.options
        return json.loads(json.dumps(asdict(options)))


class TokenizerOnly(Teacher):
    """Stands for the teacher of a folder that holds none: it decodes, and refuses to draw."""

    def __init__(self, tokenizer: Tokenizer, name: str) -> None:
        super().__init__()
        self.tokenizer, self.name = tokenizer, name

    def _refuse(self, *_: object) -> Any:
        raise DDError(f"this model was exported without its teacher {self.name}: export it again with --teacher")

    def start(self, condition: Condition, filters: Filters, prefix: Tensor | None = None) -> Any:
        return self._refuse()

    log_probs = advance = logits = unconditional = score = _refuse  # type: ignore[assignment]


# ------------------------------------------------------------------------------------------------------------- writing


def write_folder(target: Path, model: Exported, teacher: bool = False) -> Settings:
    """Write a model into a new or empty folder, or over an older export of it.

    teacher: its weights too. Raises DDError for a folder that holds other things, and for a teacher that is not there.
    """
    if teacher and isinstance(model.teacher, TokenizerOnly):
        raise DDError(f"export: {model.settings.name} came without its teacher; export it from the experiment")
    if target.exists() and not target.is_dir():
        raise DDError(f"export: expected a folder, {target} is a file; name another place")
    if target.is_dir() and any(target.iterdir()) and not (target / INDEX).is_file():
        raise DDError(f"export: expected a new or empty folder, {target} holds other files; name another one")
    settings = Settings(**{**asdict(model.settings), "teacher_weights": teacher})
    for part, (config, network) in _parts(model, teacher).items():
        tensors = {PREFIX + name: tensor for name, tensor in network.state_dict().items()}
        save_tensors(target / part / WEIGHTS, tensors)
        _write_json(target / part / "config.json", config)
    if not teacher:
        for name in (WEIGHTS, "config.json"):
            (target / "teacher" / name).unlink(missing_ok=True)
    components = {part: [MODULE, name] for part, name in COMPONENTS.items()}
    _write_json(target / INDEX, {"_class_name": "DDPipeline", **components, "settings": asdict(settings)})
    return settings


def _parts(model: Exported, teacher: bool) -> dict[str, tuple[dict[str, Any], nn.Module]]:
    """Configuration and network of each folder."""
    family, tokenizer = model.settings.family, model.teacher.tokenizer

    def config(kind: str, sizes: dict[str, Any]) -> dict[str, Any]:
        return {"_class_name": kind, "family": family, "sizes": sizes}

    found: dict[str, tuple[dict[str, Any], nn.Module]] = {
        "transformer": (config(COMPONENTS["transformer"], model.sizes), model.student),
        "vqvae": (config(COMPONENTS["vqvae"], sizes_of(tokenizer)), tokenizer),
    }
    if teacher:
        transformer = model.teacher.get_submodule("transformer")
        found["teacher"] = (config("Transformer", sizes_of(transformer)), transformer)
    return found


def sizes_of(network: Any) -> dict[str, Any]:
    """Settings of a tokenizer or transformer."""
    return asdict(network.config)


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(data, indent=2) + "\n")


# ------------------------------------------------------------------------------------------------------------- reading


def is_repository(name: str) -> bool:
    """Whether a name is one of the hub: owner/repository."""
    owner, slash, rest = name.partition("/")
    return bool(slash and owner and rest) and "/" not in rest and not owner.startswith((".", "~"))


def read_folder(path: Path, device: torch.device | str = "cpu") -> Exported:
    """The model in a folder. Raises DDError for one that holds none, or one of another version of the format."""
    if not (path / INDEX).is_file():
        raise DDError(f"expected an exported model in {path}, {INDEX} is missing: name a folder of 'dd-cli export'")
    return _read(lambda name: path / name, str(path), device)


def read_repository(repo: str, device: torch.device | str = "cpu", revision: str = "main") -> Exported:
    """The model in a repository of the hub, fetched as `dd.checkpoints.hub` fetches: resumed, checked and recorded."""
    return _read(lambda name: hub.fetch(hub.HubFile(repo, name, revision)), repo, device)


def _read(locate: Locate, where: str, device: torch.device | str) -> Exported:
    settings = _settings(locate(INDEX), where)
    configs = {part: _json(locate(f"{part}/config.json")) for part in COMPONENTS}
    student = _filled(build_student(settings.family, configs["transformer"]["sizes"]), "transformer", locate, where)
    codes = configs["vqvae"]["sizes"]
    if settings.teacher_weights:
        sizes = _json(locate("teacher/config.json"))["sizes"]
        teacher = build_teacher(settings.family, codes, sizes)
        _filled(teacher.get_submodule("transformer"), "teacher", locate, where)
    else:
        teacher = TokenizerOnly(build_tokenizer(settings.family, codes), settings.teacher)
    _filled(teacher.tokenizer, "vqvae", locate, where)
    return Exported(settings, frozen(student).to(device), frozen(teacher).to(device))


def _filled(network: Any, part: str, locate: Locate, where: str) -> Any:
    file = locate(f"{part}/{WEIGHTS}")
    tensors = {name.removeprefix(PREFIX): tensor for name, tensor in load_tensors(file).items()}
    load_strict(network, tensors, file, f"{part} of {where}")
    return network


def _settings(file: Path, where: str) -> Settings:
    data = _json(file).get("settings")
    data = data if isinstance(data, dict) else {}
    if (found := data.get("format")) != FORMAT:
        raise DDError(
            f"{where}: expected a model of dd's folder format {FORMAT}, got {found or 'another kind of model'}: "
            "export it again with this version of dd, or use the one that it was made with"
        )
    try:
        return Settings.of(data)
    except TypeError as error:
        raise DDError(f"{file} is damaged ({error}): fetch or export it again") from None


def _json(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DDError(f"{file} is missing: fetch or export the model again") from None
    except ValueError as error:
        raise DDError(f"{file} is damaged ({error}): fetch or export it again") from None
    if not isinstance(data, dict):
        raise DDError(f"{file} is damaged (no mapping): fetch or export it again")
    return data
