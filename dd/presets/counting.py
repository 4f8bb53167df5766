"""What one image costs in each network: floating-point operations, bytes and kernel launches, counted without data.

The networks run at full width on tensors that have shapes and no memory (torch's FakeTensorMode) while dispatch modes
add up the operations: `torch.utils.flop_counter` for products and convolutions (2 a multiply-add), a counter of calls
for the launches of an eager loop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from dd.config import Experiment
from dd.distillation.memory import without_data
from dd.models.base import Filters, Teacher
from dd.models.registry import build_student, build_teacher, student_config
from dd.presets.sizes import student_options, teacher_configs
from dd.text.conditions import example_captions

VGG_SIDE, INCEPTION_SIDE = 256, 299


@dataclass(frozen=True)
class Counts:
    """Of one image. teacher: a pass over all tokens, unguided; guided: 2 where each pass is done twice, else 1.

    launches: operations that one step of the teacher's loop calls. groups: steps of that loop. starts: tokens before
    each, and L. tokens, codes, width: L, V, C. weights: bytes of the teacher's transformer, float32; cache: bytes of
    keys and values of a whole image, float32. decoder, perceptual, inception: forward passes.
    """

    teacher: float
    guided: int
    launches: int
    groups: int
    starts: tuple[int, ...]
    tokens: int
    codes: int
    width: int
    weights: float
    cache: float
    student: float
    passes: int
    decoder: float
    perceptual: float
    inception: float
    image_size: int


def count(experiment: Experiment) -> Counts:
    """Count an experiment's networks; some seconds, whatever their size."""
    name, codes, config = teacher_configs(experiment)
    with without_data():
        teacher = build_teacher(name, codes, config).eval()
        student = build_student(name, student_config(teacher, **student_options(experiment))).eval()
        condition, length = _condition(teacher), teacher.groups.length
        tokens, zero = torch.zeros(1, length, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
        width, chosen = teacher.codebook.shape[1], experiment.teacher
        filters = Filters(chosen.guidance, chosen.top_k, chosen.top_p, chosen.temperature, chosen.guidance_tokens)
        launches, rows, cache = _loop(teacher, condition, filters)
        vectors = torch.zeros(1, length, width)
        transformer = teacher.get_submodule("transformer")
        return Counts(
            teacher=_flops(lambda: teacher.logits(tokens, condition)),
            guided=rows,
            launches=launches,
            groups=len(teacher.groups),
            starts=teacher.groups.starts,
            tokens=length,
            codes=len(teacher.codebook),
            width=width,
            weights=4.0 * sum(p.numel() for p in transformer.parameters()),
            cache=cache,
            student=_flops(lambda: student(vectors, zero, condition)),
            passes=student.passes,
            decoder=_flops(lambda: teacher.tokenizer.decode(vectors)),
            perceptual=_flops(lambda: _vgg()(torch.zeros(1, 3, VGG_SIDE, VGG_SIDE))),
            inception=_flops(lambda: _inception()(torch.zeros(1, 3, INCEPTION_SIDE, INCEPTION_SIDE))),
            image_size=teacher.tokenizer.image_size,
        )


def _loop(teacher: Teacher, condition: Any, filters: Filters) -> tuple[int, int, float]:
    """Calls of one step of the decoding loop, rows that an image takes in it, bytes of its keys and values."""
    with torch.no_grad():
        state = teacher.start(condition, filters)
        drawn = teacher.log_probs(state)
        with _Calls() as calls:
            teacher.advance(state, torch.zeros(drawn.shape[:2], dtype=torch.int64))
            teacher.log_probs(state)
    guided = 2 if filters.guidance not in (0, 1) else 1
    return calls.total, guided, float(sum(_storages(state).values()))


def _storages(thing: Any, depth: int = 4) -> dict[int, int]:
    """Bytes of each storage that an object holds, itself or in its parts: nearly all are keys and values."""
    if isinstance(thing, Tensor):
        storage = thing.untyped_storage()
        return {storage._cdata: storage.nbytes()}
    if depth == 0:
        return {}
    parts = thing if isinstance(thing, list | tuple) else vars(thing).values() if hasattr(thing, "__dict__") else ()
    found: dict[int, int] = {}
    for part in parts:
        found |= _storages(part, depth - 1)
    return found


def _condition(teacher: Teacher) -> Any:
    """One class, or one caption of full length, whichever the teacher takes."""
    config: Any = teacher.get_submodule("transformer").config
    if getattr(config, "caption_dim", 0) and getattr(config, "model_type", "t2i") != "c2i":
        return example_captions(config, 1)
    return torch.zeros(1, dtype=torch.int64)


def _vgg() -> nn.Module:
    from torchvision.models import vgg16

    return vgg16(weights=None).features


def _inception() -> nn.Module:
    from torchvision.models import inception_v3

    return inception_v3(weights=None, init_weights=False, aux_logits=False).eval()


def _flops(run: Any) -> float:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


class _Calls(TorchDispatchMode):
    """Counts operations; views launch nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.total += not func.is_view
        return func(*args, **(kwargs or {}))
