"""`dd-cli bench precision`: what TF32 or bfloat16 in the teacher, or in the map, does to the tokens of the pairs.

TF32 is emulated where there is no such hardware: every factor of a product keeps 10 bits of its mantissa, rounded to
nearest, and sums stay in float32. Attention's own weights, which a card rounds too, are left as they are.

Same context: every token is drawn behind the float32 tokens, so differences do not add up. Whole images: each goes on
behind its own tokens. Surprise: mean -log p of the tokens under the float32 teacher less its expectation (the entropy),
in standard errors: what is drawn through a rounded map must still follow p.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from torch import Tensor

    from dd.models.base import Filters, Teacher

# What is rounded: the teacher, the map.
CASES = {
    "float32 again": ("fp32", "fp32"),
    "map in TF32": ("fp32", "tf32"),
    "teacher in TF32": ("tf32", "fp32"),
    "teacher in bfloat16": ("bf16", "fp32"),
    "both in TF32": ("tf32", "tf32"),
}


@dataclass(frozen=True)
class Agreement:
    """One line: shares of equal tokens, and how likely those of whole images are (see above)."""

    teacher: str
    case: str
    tokens: int
    same_context: float
    whole_images: float
    surprise: float
    standard_errors: float


def precision(
    teacher: Annotated[list[str] | None, typer.Option(help="Teachers of the zoo; default: those that ship.")] = None,
    images: Annotated[int, typer.Option(min=2, help="Images per case.")] = 100,
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="As JSON, and into results/bench/precision.json.")] = False,
) -> None:
    """Count the tokens that change when teacher or map compute in TF32 or bfloat16 (emulated on a CPU)."""
    from dd.bench.output import report
    from dd.bench.sampling import teacher_filters
    from dd.checkpoints import zoo
    from dd.checkpoints.teachers import load_teacher

    shipped = [n for n, e in zoo.entries().items() if e.shipped and e.kind == "teacher" and e.text_encoder is None]
    rows: list[dict[str, Any]] = []
    for name in teacher or shipped:
        loaded = load_teacher(name)
        rows += [asdict(one) for one in measure(name, loaded, teacher_filters(name), images, seed)]
    report("precision", rows, json)


def measure(name: str, teacher: Teacher, filters: Filters, images: int, seed: int) -> list[Agreement]:
    """All cases of one teacher of classes."""
    import torch

    from dd.bench.map_accuracy import classes_of
    from dd.trajectories.noise import noise
    from dd.trajectories.trajectory import balanced_classes

    indices = torch.arange(images)
    classes = balanced_classes(indices, classes_of(teacher))
    e = noise(seed, indices, teacher.groups.length, teacher.codebook.shape[1])
    exact = Loop(teacher, classes, filters, e)
    truth = exact.tokens("fp32", "fp32")
    found = []
    for case, (network, flow) in CASES.items():
        same, whole = exact.tokens(network, flow, behind=truth), exact.tokens(network, flow)
        surprise, errors = unexpected(teacher, classes, filters, whole)
        behind, own = (float((tokens == truth).float().mean()) for tokens in (same, whole))
        found.append(Agreement(name, case, truth.numel(), behind, own, surprise, errors))
    return found


@dataclass(frozen=True)
class Loop:
    """A teacher's loop through the map, for one batch of classes and its noise."""

    teacher: Teacher
    classes: Tensor
    filters: Filters
    noise: Tensor

    def tokens(self, network: str, flow: str, behind: Tensor | None = None) -> Tensor:
        """(B, L) tokens with the teacher and the map in these precisions; each `behind` tokens (B, L), if given."""
        import torch

        from dd.flow.map import Codes, map_noise
        from dd.trajectories.trajectory import decode

        codes, drawn = Codes.prepare(self.teacher.codebook), []

        def draw(log_probs: Tensor, positions: slice) -> Tensor:
            with rounded(flow):
                flat = self.noise[:, positions].flatten(0, 1), log_probs.float().flatten(0, 1)
                drawn.append(map_noise(*flat, codes).tokens.view(log_probs.shape[:2]))
            return drawn[-1] if behind is None else behind[:, positions]

        decode(Rounded(self.teacher, network), self.classes, self.filters, draw)  # type: ignore[arg-type]
        return torch.cat(drawn, 1)


class Rounded:
    """A teacher whose steps are computed in another precision."""

    def __init__(self, teacher: Teacher, how: str) -> None:
        self.teacher, self.how = teacher, how
        self.groups, self.codebook = teacher.groups, teacher.codebook

    def start(self, *arguments: Any) -> Any:
        with rounded(self.how):
            return self.teacher.start(*arguments)

    def log_probs(self, state: Any) -> Tensor:
        with rounded(self.how):
            return self.teacher.log_probs(state)

    def advance(self, state: Any, tokens: Tensor) -> None:
        with rounded(self.how):
            self.teacher.advance(state, tokens)


def unexpected(teacher: Teacher, classes: Tensor, filters: Filters, tokens: Tensor) -> tuple[float, float]:
    """Mean -log p of tokens (B, L) less its expectation under the teacher in float32, and that in standard errors.

    A token that the exact filters leave out counts as the least likely one that is left.
    """
    import torch

    with torch.no_grad():
        log_p = teacher.score(tokens, classes, filters).double()
    p = log_p.exp()
    entropy = -torch.where(p > 0, p * log_p, 0).sum(-1)
    least = torch.where(p > 0, log_p, 0).amin(-1)
    surprise = -torch.maximum(log_p.gather(2, tokens[..., None])[..., 0], least)
    difference = (surprise - entropy).flatten()
    error = float(difference.std()) / difference.numel() ** 0.5
    return float(difference.mean()), float(difference.mean()) / max(error, 1e-12)


def rounded(how: str) -> Any:
    """A context in which products have factors of this precision: fp32, tf32 (emulated) or bf16 (autocast)."""
    import torch

    if how == "bf16":
        return torch.autocast("cpu", dtype=torch.bfloat16)
    return _tf32()() if how == "tf32" else nullcontext()


def to_tf32(x: Tensor) -> Tensor:
    """float32 numbers with 10 bits of mantissa, to nearest (halves away from zero)."""
    import torch

    if x.dtype != torch.float32:
        return x
    return ((x.contiguous().view(torch.int32) + (1 << 12)) & ~((1 << 13) - 1)).view(torch.float32)


def _tf32() -> Callable[[], Any]:
    """A dispatch mode that rounds the factors of products; the class is made here because torch is imported late."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    aten = torch.ops.aten
    # Operation -> places of its factors among the arguments.
    factors: dict[Any, tuple[int, ...]] = {
        aten.mm: (0, 1),
        aten.bmm: (0, 1),
        aten.addmm: (1, 2),
        aten.baddbmm: (1, 2),
        aten.convolution: (0, 1),
    }
    factors |= {aten.linear: (0, 1), aten._scaled_dot_product_flash_attention_for_cpu: (0, 1, 2)}
    factors |= {aten._scaled_dot_product_attention_math: (0, 1, 2)}

    class TF32(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            places = factors.get(func.overloadpacket, ())
            args = [to_tf32(x) if i in places else x for i, x in enumerate(args)]
            return func(*args, **(kwargs or {}))

    return TF32
