"""`dd-cli bench map`: the noise-to-token map against a tight integration, and against dopri5 on the same tokens.

Truth is a float64 dopri5 with its own step for every token (tolerance 1e-7) on the equation in y(r). The speed is
compared with torchdiffeq's dopri5 at rtol = atol = 1e-5 in float32, on the equation as the paper writes it.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dd.errors import DDError, install

if TYPE_CHECKING:
    from torch import Tensor

    from dd.flow.grid import Solver
    from dd.models.base import Filters

# Codebooks of the official models, with the filters that their authors sample with, and a preset that has such a one.
CODEBOOKS = {
    "4096x32": (4096, 32, "top-k 900, top-p 0.95", "var-d16"),
    "16384x8": (16384, 8, "top-k 8000", "llamagen-l"),
    "16384x8 unfiltered": (16384, 8, "none", "llamagen-l"),
}
DORMAND_PRINCE = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
ERROR = (71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


@dataclass(frozen=True)
class Case:
    """One line of the table.

    contexts: "random", or the teacher whose contexts they are. agreement: share of tokens that the exact flow gives,
    too, in the same context. sequence_agreement: share of equal tokens over whole images of the teacher, between these
    settings of the solver and much finer ones; a token that differs changes all contexts behind it. dopri5_tokens: the
    batch of the comparison with dopri5. surprise: mean -log p of the mapped tokens, whose expectation is the entropy.
    """

    codebook: str
    contexts: str
    filters: str
    tokens: int
    agreement: float
    sequence_agreement: float | None
    mean_evaluations: float
    tokens_per_second: float
    dopri5_tokens: int
    dopri5_evaluations: int | None
    speedup_over_dopri5: float | None
    surprise: float
    entropy: float
    mode_share: float
    mode_probability: float


def map(
    tokens: Annotated[int, typer.Option(min=10, help="Tokens per case.")] = 4000,
    dopri5: Annotated[int, typer.Option(min=0, help="Tokens for the comparison with dopri5; 0 skips it.")] = 200,
    teacher: Annotated[
        list[str] | None, typer.Option(help="Teachers whose real contexts are measured too; default: those that ship.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of codes, logits and noise.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="As JSON, and into results/bench/map.json.")] = False,
) -> None:
    """Measure the map: agreement with the exact flow, evaluations, speed, and frequencies (surprise = entropy)."""
    from dd.bench.output import report
    from dd.checkpoints import zoo

    shipped = [name for name, entry in zoo.entries().items() if entry.shipped and entry.kind == "teacher"]
    report("map", [asdict(case) for case in measure(tokens, dopri5, teacher or shipped, seed)], json)


def measure(tokens: int, dopri5: int, teachers: list[str], seed: int) -> list[Case]:
    """All cases."""
    import torch

    from dd.flow.map import Solver

    cases = []
    for size, width, filters, preset in CODEBOOKS.values():
        generator = torch.Generator().manual_seed(seed)
        codes = torch.randn(size, width, generator=generator)
        if width == 8:
            codes = torch.nn.functional.normalize(codes, dim=-1)
        chunks = (random_contexts(codes, filters, n, generator) for n in _sizes(tokens, 250))
        cases.append(_case("random", filters, codes, chunks, dopri5, solver_of(preset), seed))
    for name in teachers:
        from dd.bench.sampling import teacher_filters
        from dd.checkpoints.teachers import load_teacher

        loaded, settings = load_teacher(name), teacher_filters(name)
        shown = ", ".join(f"{key} {value:g}" for key, value in vars(settings).items() if key != "guidance_tokens")
        contexts = real_contexts(loaded, settings, tokens, seed)
        case = _case(name, shown, loaded.codebook, contexts, dopri5, Solver(), seed)
        images = max(1, tokens // loaded.groups.length)
        cases.append(replace(case, sequence_agreement=sequence_agreement(loaded, settings, images, seed)))
    return cases


def solver_of(preset: str) -> Solver:
    """The solver that a preset's trajectories are made with."""
    import yaml

    from dd.flow.map import Solver
    from dd.presets import preset_text

    return Solver(**yaml.safe_load(preset_text(preset))[preset]["trajectories"].get("solver", {}))


def sequence_agreement(teacher: Any, filters: Filters, images: int, seed: int) -> float:
    """Share of equal tokens over whole images, between the usual solver and one with steps half as long."""
    import torch

    from dd.flow.map import Solver
    from dd.trajectories.noise import noise
    from dd.trajectories.trajectory import balanced_classes, trajectory

    usual = Solver()
    fine = Solver(usual.first / 2, 1 + (usual.ratio - 1) / 2, usual.negligible / 10, 2 * usual.max_evaluations)
    equal = []
    for first in range(0, images, 50):
        indices = torch.arange(first, min(first + 50, images))
        e = noise(seed, indices, teacher.groups.length, teacher.codebook.shape[1])
        classes = balanced_classes(indices, classes_of(teacher))
        one, two = (trajectory(teacher, classes, e, filters, solver).tokens for solver in (usual, fine))
        equal.append(one == two)
    return float(torch.cat(equal).double().mean())


def _sizes(total: int, most: int) -> list[int]:
    return [min(most, total - first) for first in range(0, total, most)]


def random_contexts(codes: Tensor, filters: str, count: int, generator: Any) -> Tensor:
    """(count, V) log-probabilities: logits with a part that follows the codes, so that close codes are alike."""
    import torch

    size, width = codes.shape
    scale = codes.norm(dim=-1).mean()
    alike = torch.randn(count, width, generator=generator) @ codes.T / scale
    sharpness = 1 + 2 * torch.rand(count, 1, generator=generator)
    logits = sharpness * (torch.randn(count, size, generator=generator) + alike)
    if filters.startswith("top-k"):
        words = filters.replace(",", "").split()
        logits = logits.masked_fill(logits < logits.topk(int(words[1]), -1).values[:, -1:], -math.inf)
        if "top-p" in words:
            values, order = logits.sort(-1)
            removed = values.softmax(-1).cumsum(-1) <= 1 - float(words[words.index("top-p") + 1])
            removed[:, -1] = False
            logits = logits.masked_fill(removed.scatter(-1, order, removed), -math.inf)
    return logits.log_softmax(-1)


def classes_of(teacher: Any) -> int:
    """Number of classes: the class after the last one stands for "no class". Raises DDError for captions."""
    import torch

    config = teacher.get_submodule("transformer").config
    if getattr(config, "model_type", "c2i") != "c2i":
        raise DDError("expected a teacher that draws from classes, got one of captions: name another teacher")
    return int(teacher.unconditional(torch.zeros(1, dtype=torch.long))[0])


def real_contexts(teacher: Any, filters: Filters, tokens: int, seed: int) -> Any:
    """Chunks (n, V) of a teacher's log-probabilities in contexts that it drew itself."""
    import torch

    from dd.trajectories.trajectory import balanced_classes, sample

    length = teacher.groups.length
    images = max(1, math.ceil(tokens / length))
    generator = torch.Generator().manual_seed(seed)
    for first in range(0, images, 50):
        classes = balanced_classes(torch.arange(first, min(first + 50, images)), classes_of(teacher))
        drawn = sample(teacher, classes, filters, generator)
        yield teacher.score(drawn, classes, filters).flatten(0, 1)[: tokens - first * length]


def _case(contexts_of: str, filters: str, codes: Tensor, contexts: Any, dopri5: int, solver: Solver, seed: int) -> Case:
    import torch

    from dd.flow.map import Codes, map_noise
    from dd.trajectories.noise import noise

    ready = Codes.prepare(codes)
    agree, evaluations, seconds, count = 0, 0, 0.0, 0
    compared: tuple[int, int | None, float | None] = (0, None, None)
    sums = torch.zeros(4, dtype=torch.float64)
    for log_probs in contexts:
        e = noise(seed, torch.arange(count, count + len(log_probs)), 1, codes.shape[1])[:, 0]
        started = time.perf_counter()
        result = map_noise(e, log_probs, ready, solver)
        seconds += time.perf_counter() - started
        if dopri5 and not compared[0]:
            rows = min(dopri5, len(e))
            compared = rows, *_speedup(e[:rows], log_probs[:rows], codes, ready, solver)
        agree += int((result.tokens == exact_map(e, log_probs, codes)).sum())
        evaluations += int(result.evaluations.sum())
        count += len(log_probs)
        p = log_probs.exp().double()
        terms = (
            -log_probs.gather(1, result.tokens[:, None])[:, 0].double(),
            -torch.where(p > 0, p * log_probs, 0).sum(-1),
            (result.tokens == log_probs.argmax(-1)).double(),
            p.amax(-1),
        )
        sums += torch.stack([term.sum() for term in terms])
    means = (sums / count).tolist()
    codebook = "x".join(str(n) for n in codes.shape)
    rates = agree / count, None, evaluations / count, count / seconds
    return Case(codebook, contexts_of, filters, count, *rates, *compared, *means)


def exact_map(e: Tensor, log_probs: Tensor, codes: Tensor, tolerance: float = 1e-7, limit: int = 5000) -> Tensor:
    """Tokens (N,) by a float64 Dormand-Prince method with each token's own steps, until one code has all the weight."""
    import torch

    e, log_probs, codes = e.double(), log_probs.double(), codes.double()
    squares = codes.square().sum(-1)

    def field(y: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        r = r[:, None]
        weights = (kept + r * (y @ codes.T) - r * r / 2 * squares).softmax(-1)
        return weights @ codes, weights

    tokens = torch.full((len(e),), -1, dtype=torch.long)
    row, y, kept, r = torch.arange(len(e)), e, log_probs, torch.zeros(len(e), dtype=torch.float64)
    h = torch.full_like(r, 0.02) / squares.mean().sqrt()
    m = field(y, r)[0]
    for _ in range(limit):
        slopes = [m]
        for weights in DORMAND_PRINCE:
            at = y + h[:, None] * sum(w * k for w, k in zip(weights, slopes, strict=True))
            slope, posterior = field(at, r + h * (sum(weights) if len(slopes) < 6 else 1))
            slopes.append(slope)
        error = (h[:, None] * sum(w * k for w, k in zip(ERROR, slopes, strict=True))).norm(dim=-1) / tolerance
        good = error <= 1
        y, m, r = (
            torch.where(good[:, None], at, y),
            torch.where(good[:, None], slopes[-1], m),
            torch.where(good, r + h, r),
        )
        h = h * (0.9 * (error + 1e-12) ** -0.2).clamp(0.2, 4)
        done = good & (posterior.amax(-1) > 1 - 1e-9)
        if done.any():
            tokens[row[done]] = posterior[done].argmax(-1)
            row, y, m, r, h, kept = (x[~done] for x in (row, y, m, r, h, kept))
            if not len(row):
                return tokens
    raise DDError(f"the exact integration did not decide {len(row)} of {len(e)} tokens in {limit} steps")


def _speedup(e: Tensor, log_probs: Tensor, codes: Tensor, ready: Any, solver: Solver) -> tuple[int, float]:
    """Evaluations of torchdiffeq's dopri5, and its seconds over ours on the same tokens: the best of three, in turn."""
    import torch

    from dd.flow.map import map_noise, velocity

    try:
        from torchdiffeq import odeint
    except ImportError:
        raise DDError(f"torchdiffeq is not installed: {install('test')}, or give --dopri5 0") from None
    evaluations = 0

    def field(t: Tensor, x: Tensor) -> Tensor:
        nonlocal evaluations
        evaluations += 1
        return velocity(x, t.expand(len(x)), log_probs, codes)

    def seconds(work: Any) -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    times = torch.tensor([0.0, 0.999])
    theirs, ours = [], []
    for _ in range(3):
        theirs.append(seconds(lambda: odeint(field, e, times, rtol=1e-5, atol=1e-5)))
        ours.append(seconds(lambda: map_noise(e, log_probs, ready, solver)))
    return evaluations // 3, min(theirs) / min(ours)
