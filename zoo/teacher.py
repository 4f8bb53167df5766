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

from dd.checkpoints.safe import load_tensors, save_tensors
from dd.datasets.packed import ImageSet, load_images
from dd.models.base import Condition, Teacher, Tokenizer
from dd.models.precision import autocast
from dd.models.registry import build_teacher
from dd.system.progress import progress
from dd.text.captions import caption_states, read_captions
from dd.text.conditions import Captions
from zoo.extractor import to_model
from zoo.loop import fit
from zoo.settings import HERE, TeacherSettings, load_settings, pick, run_zoo

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TokenSet:
    """tokens (N, L) int64 of a data set; condition: rows (B,) to their classes (B,) or captions."""

    tokens: Tensor
    condition: Callable[[Tensor], Condition]

    def first(self, rows: int) -> TokenSet:
        """The first rows."""
        return TokenSet(self.tokens[:rows], self.condition)


@torch.no_grad()
def encode_all(tokenizer: Tokenizer, data: ImageSet, batch: int = 500) -> Tensor:
    """Tokens (N, L) of every image, in order."""
    parts = []
    for start in progress(range(0, len(data), batch), unit="batches", label="encode"):
        parts.append(tokenizer.encode(to_model(data.images[start : start + batch])))
    return torch.cat(parts)


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


def train(settings: TeacherSettings, teacher: Teacher, data: TokenSet, identity: Any) -> Teacher:
    """Cross-entropy under teacher forcing; `label_dropout` of the conditions are left out."""
    run = settings.train
    per_epoch = len(data.tokens) // run.batch
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
        tokens = data.tokens[rows]
        draw = torch.rand(len(rows), generator=torch.Generator().manual_seed(run.seed + 7919 * step + 1))
        condition = drop(teacher, data.condition(rows), draw < settings.label_dropout)
        with autocast("auto"):
            logits = predict(tokens, condition)
        return {"cross_entropy": F.cross_entropy(logits.float().flatten(0, 1), tokens.flatten())}

    fit(teacher.get_submodule("transformer"), loss_of, int(run.epochs * per_epoch), run, identity, "teacher")
    return teacher.eval()


def main(name: str) -> str:
    zoo = load_settings()
    settings = pick(zoo.teachers, "teacher", name)
    source = pick(zoo.tokenizers, "tokenizer", settings.tokenizer)
    torch.manual_seed(settings.train.seed)
    teacher = build_teacher(source.family, source.config, settings.config)
    teacher.tokenizer.load_state_dict(load_tensors(HERE / settings.tokenizer / "tokenizer.safetensors"))
    transformer = teacher.get_submodule("transformer")
    transformer.init_weights()  # type: ignore[operator]
    teacher.eval()
    sets = []
    for split, count in (("train", settings.images or None), ("test", settings.measured)):
        folder = HERE / "data" / source.dataset / split
        images = load_images(folder).first(count)
        sets.append(TokenSet(encode_all(teacher.tokenizer, images), conditions(settings, folder, images)))
    data, test = sets
    train(settings, teacher, data, [settings, source])
    about = {
        "nll_test": round(negative_log_likelihood(teacher, test), 4),
        "nll_train": round(negative_log_likelihood(teacher, data.first(settings.measured)), 4),
    }
    save_tensors(HERE / name / "teacher.safetensors", transformer.state_dict(), {"data": source.dataset, **about})
    return f"wrote zoo/{name}/teacher.safetensors: {about}"


if __name__ == "__main__":
    run_zoo(main, __doc__)
