"""Teacher of a tokenizer: an autoregressive transformer over its tokens -> zoo/<name>/teacher.safetensors.

With a `text_encoder` it is one of text to image: its conditions are the captions of the data set (captions.parquet),
encoded once into zoo/work/captions/.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dd.checkpoints.safe import load_tensors, read_metadata, save_tensors
from dd.datasets.packed import ImageSet, load_images, packed_hash
from dd.errors import DDError
from dd.models.base import Condition, Teacher, Tokenizer
from dd.models.precision import autocast
from dd.models.registry import build_teacher, build_tokenizer, transformer_config
from dd.system.files import sha256_file
from dd.system.progress import progress
from dd.text.captions import caption_states, read_captions
from dd.text.conditions import Captions
from zoo import sanity
from zoo.loop import Best, fit, forget
from zoo.pixels import move, to_model
from zoo.settings import HERE, TeacherSettings, TokenizerSettings, load_settings, pick, run_zoo

log = logging.getLogger(__name__)
LABEL = "teacher"


@dataclass(frozen=True)
class TokenSet:
    """tokens (N, L) int64 of a data set; condition: rows (B,) to their classes (B,) or captions.

    views: (views, N, L) what is trained on, the tokens and those of the images moved a little.
    """

    tokens: Tensor
    condition: Callable[[Tensor], Condition]
    views: Tensor

    def first(self, rows: int) -> TokenSet:
        """The first rows."""
        return TokenSet(self.tokens[:rows], self.condition, self.views[:, :rows])


@torch.no_grad()
def encode_all(tokenizer: Tokenizer, data: ImageSet, batch: int = 500, shift: int = 0, seed: int = 0) -> Tensor:
    """Tokens (N, L) of every image, in order; shift: of images moved by up to so many pixels."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for start in progress(range(0, len(data), batch), unit="batches", label="encode"):
        images = to_model(data.images[start : start + batch])
        parts.append(tokenizer.encode(move(images, generator, shift) if shift else images))
    return torch.cat(parts)


def encode_views(tokenizer: Tokenizer, data: ImageSet, views: int, shift: int) -> Tensor:
    """Tokens (views, N, L) of the images as they are, then of images moved a little."""
    moved = [encode_all(tokenizer, data, shift=shift, seed=view) for view in range(1, views)]
    return torch.stack([encode_all(tokenizer, data), *moved])


def conditions(settings: TeacherSettings, folder: Path, data: ImageSet) -> Callable[[Tensor], Condition]:
    """Rows of a data set to what they are drawn from."""
    if settings.text_encoder is None:
        return torch.as_tensor(data.labels).__getitem__
    width, length = settings.config["caption_dim"], settings.config["cls_token_num"]
    captions = read_captions(folder / "captions.parquet")
    return caption_states(captions, settings.text_encoder, width, length, HERE / "work" / "captions")


def drop(teacher: Teacher, condition: Condition, dropped: Tensor) -> Condition:
    """Some rows (B,) of a batch without their condition, as guidance needs it."""
    nothing = teacher.unconditional(condition)
    if isinstance(condition, Captions):
        return replace(condition, states=torch.where(dropped[:, None, None], nothing.states, condition.states))
    return torch.where(dropped, nothing, condition)


def negative_log_likelihood(teacher: Teacher, data: TokenSet, batch: int = 500) -> float:
    """Mean over tokens, in nats, without guidance."""
    teacher.eval()
    with torch.no_grad():
        losses = [
            F.cross_entropy(
                teacher.logits(data.tokens[rows], data.condition(rows)).flatten(0, 1),
                data.tokens[rows].flatten(),
                reduction="sum",
            ).item()
            for rows in torch.arange(len(data.tokens)).split(batch)
        ]
    return sum(losses) / data.tokens.numel()


def train(settings: TeacherSettings, teacher: Teacher, data: TokenSet, test: TokenSet, identity: Any) -> Teacher:
    """Cross-entropy under teacher forcing; `label_dropout` of the conditions are left out.

    With `validate_every`, the weights with the lowest negative log-likelihood on `test` are kept.
    """
    run = settings.train
    steps, per_epoch = run.count(len(data.tokens)), len(data.tokens) // run.batch
    sanity.steps(steps, len(data.tokens), run.batch, "teacher")
    order: dict[int, Tensor] = {}
    teacher.tokenizer.requires_grad_(False)
    predict = torch.compile(teacher.logits) if settings.compile else teacher.logits

    def loss_of(step: int) -> dict[str, Tensor]:
        epoch, place = divmod(step, per_epoch)
        if epoch not in order:
            order.clear()
            order[epoch] = torch.randperm(
                len(data.tokens), generator=torch.Generator().manual_seed(run.seed * 1000 + epoch)
            )
        rows = order[epoch][place * run.batch : (place + 1) * run.batch]
        generator = torch.Generator().manual_seed(run.seed + 7919 * step + 1)
        draw = torch.rand(len(rows), generator=generator)
        view = torch.randint(len(data.views), (len(rows),), generator=generator)
        tokens = data.views[view, rows]
        condition = drop(teacher, data.condition(rows), draw < settings.label_dropout)
        with autocast("auto"):
            logits = predict(tokens, condition)
        return {"cross_entropy": F.cross_entropy(logits.float().flatten(0, 1), tokens.flatten())}

    best = None
    if settings.validate_every:
        best = Best(lambda: negative_log_likelihood(teacher, test.first(2000)), settings.validate_every)
    fit(teacher.get_submodule("transformer"), loss_of, steps, run, identity, LABEL, best, settings.tokenizer)
    return teacher.eval()


def open_teacher(name: str, settings: TeacherSettings, source: TokenizerSettings) -> tuple[Teacher, dict[str, Any]]:
    """An untrained teacher over its trained tokenizer, and the whole of its transformer's settings."""
    torch.manual_seed(settings.train.seed)
    weights = HERE / settings.tokenizer / "tokenizer.safetensors"
    about = read_metadata(weights)
    family, codes = about.get("family", source.family), about.get("config", source.config)
    tokenizer = build_tokenizer(family, codes)
    tokenizer.load_state_dict(load_tensors(weights))
    known = {}
    if settings.text_encoder is None:
        classes = len(load_images(HERE / "data" / source.dataset / "train").classes)
        sanity.classes(name, settings.config.get("num_classes"), classes)
        known["num_classes"] = classes
    try:
        config = transformer_config(family, tokenizer, settings.config, **known)
    except DDError as error:
        raise DDError(f"teachers.{name}.{error}") from None
    torch.manual_seed(settings.train.seed)
    teacher = build_teacher(family, codes, config)
    teacher.tokenizer.load_state_dict(tokenizer.state_dict())
    teacher.get_submodule("transformer").init_weights()  # type: ignore[operator]
    return teacher.eval(), config


def main(name: str) -> str:
    """Train the teacher. Returns a line for the log."""
    zoo = load_settings()
    settings = pick(zoo.teachers, "teacher", name)
    source = pick(zoo.tokenizers, "tokenizer", settings.tokenizer)
    teacher, config = open_teacher(name, settings, source)
    sets, packed = [], HERE / "data" / source.dataset
    for split, count in (("train", settings.images or None), ("test", settings.measured)):
        images = load_images(packed / split).first(count)
        views = encode_views(teacher.tokenizer, images, settings.views if split == "train" else 1, settings.shift)
        sets.append(TokenSet(views[0], conditions(settings, packed / split, images), views))
    data, test = sets
    identity = [settings, packed_hash(packed), sha256_file(HERE / settings.tokenizer / "tokenizer.safetensors")]
    train(settings, teacher, data, test, identity)
    about = {
        "nll_test": round(negative_log_likelihood(teacher, test), 4),
        "nll_train": round(negative_log_likelihood(teacher, data.first(settings.measured)), 4),
    }
    sanity.teacher(name, about["nll_test"], about["nll_train"], len(teacher.codebook))
    made = {"data": source.dataset, "config": config, "text_encoder": settings.text_encoder}
    weights = teacher.get_submodule("transformer").state_dict()
    save_tensors(HERE / name / "teacher.safetensors", weights, {**made, **about})
    forget(settings.tokenizer, identity, settings.train, LABEL)
    return f"wrote zoo/{name}/teacher.safetensors: {about}"


if __name__ == "__main__":
    run_zoo(main, __doc__)
