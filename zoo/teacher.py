"""Teacher of a tokenizer: an autoregressive transformer over its tokens -> zoo/<name>/teacher.safetensors."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dd.data import ImageSet, load_images
from dd.machine import tune_cpu
from dd.models.base import Teacher, Tokenizer
from dd.models.registry import build_teacher
from dd.precision import autocast
from dd.progress import progress
from dd.safeload import load_tensors, save_tensors
from zoo.extractor import to_model
from zoo.loop import fit
from zoo.settings import HERE, TeacherSettings, load_settings, pick, run_stage

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TokenSet:
    """tokens (N, L) int64 and labels (N,) int64 of a data set."""

    tokens: Tensor
    labels: Tensor


@torch.no_grad()
def encode_all(tokenizer: Tokenizer, data: ImageSet, batch: int = 500) -> TokenSet:
    """Tokens of every image, in order."""
    parts = []
    for start in progress(range(0, len(data), batch), unit="batches", label="encode"):
        parts.append(tokenizer.encode(to_model(data.images[start : start + batch])))
    return TokenSet(torch.cat(parts), torch.as_tensor(data.labels))


def negative_log_likelihood(teacher: Teacher, data: TokenSet, batch: int = 500) -> float:
    """Mean over tokens, in nats, without guidance."""
    teacher.eval()
    with torch.no_grad():
        losses = [
            F.cross_entropy(teacher.logits(tokens, labels).flatten(0, 1), tokens.flatten(), reduction="sum").item()
            for tokens, labels in zip(data.tokens.split(batch), data.labels.split(batch), strict=True)
        ]
    return sum(losses) / data.tokens.numel()


def train(settings: TeacherSettings, teacher: Teacher, data: TokenSet, identity: Any) -> Teacher:
    """Cross-entropy under teacher forcing; `label_dropout` of the labels become "no class", for guidance."""
    run = settings.train
    per_epoch = len(data.tokens) // run.batch
    order: dict[int, Tensor] = {}
    teacher.tokenizer.requires_grad_(False)

    def loss_of(step: int) -> dict[str, Tensor]:
        epoch, place = divmod(step, per_epoch)
        if epoch not in order:
            order.clear()
            order[epoch] = torch.randperm(
                len(data.tokens), generator=torch.Generator().manual_seed(run.seed * 1000 + epoch)
            )
        rows = order[epoch][place * run.batch : (place + 1) * run.batch]
        tokens, labels = data.tokens[rows], data.labels[rows]
        draw = torch.rand(len(rows), generator=torch.Generator().manual_seed(run.seed + 7919 * step + 1))
        labels = torch.where(draw < settings.label_dropout, teacher.unconditional(labels), labels)
        with autocast("auto"):
            logits = teacher.logits(tokens, labels)
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
    folder = HERE / "data" / source.dataset
    data, test = (encode_all(teacher.tokenizer, load_images(folder / split)) for split in ("train", "test"))
    train(settings, teacher, data, [settings, source])
    about = {
        "nll_test": round(negative_log_likelihood(teacher, test), 4),
        "nll_train": round(negative_log_likelihood(teacher, TokenSet(data.tokens[:10000], data.labels[:10000])), 4),
    }
    save_tensors(HERE / name / "teacher.safetensors", transformer.state_dict(), {"data": source.dataset, **about})
    return f"wrote zoo/{name}/teacher.safetensors: {about}"


if __name__ == "__main__":
    tune_cpu()
    run_stage(main, __doc__)
