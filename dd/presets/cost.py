"""Hours, memory and disk of an experiment's stages on a card, from counted work and the card's data sheet.

Each stage is a list of terms with their arithmetic. Estimates, within a factor of two; where a stage has run for a
minute on the card, its own rate takes their place (`dd.presets.rates`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from dd import config
from dd.config import Experiment
from dd.presets.counting import Counts, count
from dd.presets.devices import CONVOLUTIONS, LAUNCH, PRODUCTS, PRODUCTS_FP32, READS, Card

MAP_EVALUATIONS, MAP_LAUNCHES = 25, 20  # of a token; of one evaluation
SCALING = 0.9  # of several cards, where gradients are exchanged
GB = 1e9


@dataclass(frozen=True)
class Term:
    """A part of a stage's time: seconds of one unit (an image, a pair), and how they come about."""

    name: str
    seconds: float
    arithmetic: str


@dataclass(frozen=True)
class StageCost:
    """units: images or pairs in all. memory: bytes of a card. measured: units a second that the stage reported."""

    stage: str
    units: float
    unit: str
    terms: list[Term]
    memory: float
    cards: int = 1
    scaling: float = 1.0
    overlapped: list[Term] = field(default_factory=list)
    measured: float | None = None

    @property
    def seconds_a_unit(self) -> float:
        """On one card; launches overlap with the work, the longer of the two counts."""
        return max(sum(term.seconds for term in self.terms), sum(term.seconds for term in self.overlapped))

    @property
    def hours(self) -> float:
        if self.measured:
            return self.units / self.measured / 3600
        speed = self.cards * (self.scaling if self.cards > 1 else 1.0)
        return self.units * self.seconds_a_unit / speed / 3600


def stage_costs(
    experiment: Experiment, card: Card, cards: int = 1, measured: dict[str, float] | None = None
) -> list[StageCost]:
    """The stages that compute, first to last. measured: units a second of one card, where a stage has reported it."""
    rates = {stage: rate * cards for stage, rate in (measured or {}).items()}
    return [replace(cost, measured=rates.get(cost.stage)) for cost in _estimates(experiment, card, cards)]


def _estimates(experiment: Experiment, card: Card, cards: int) -> list[StageCost]:
    counts = count(experiment)
    found = []
    if experiment.trajectories and experiment.distill:
        settings = experiment.trajectories
        terms, launches = teacher_terms(counts, card, settings.batch, precision=settings.precision)
        memory = teacher_memory(counts, settings.batch)
        units = settings.pairs + settings.held_out
        found.append(StageCost("trajectories", units, "pairs", terms, memory, cards, 1.0, launches))
        found.append(_distill(experiment, counts, card, cards))
    found.append(_evaluate(experiment, counts, card, cards))
    return found


def teacher_terms(
    counts: Counts, card: Card, batch: int, share: float = 1.0, precision: str = "fp32"
) -> tuple[list[Term], list[Term]]:
    """An image of the teacher's loop through the map (share: of its groups), and the launches that overlap with it."""
    rate, reached, kind = card.fp32, PRODUCTS_FP32, "float32"
    if precision == "tf32":
        rate, reached, kind = card.tf32, PRODUCTS, "TF32"
    steps = counts.groups * share
    flops = counts.guided * counts.teacher * share
    weights, cache = steps * counts.weights / batch, steps * counts.cache / 2
    codes = share * counts.tokens * MAP_EVALUATIONS * counts.codes * 8.0
    reads = weights + cache + codes
    calls = steps * (counts.launches + MAP_EVALUATIONS * MAP_LAUNCHES)
    return [
        Term(
            "products",
            flops / (rate * reached),
            f"{flops / 1e9:,.0f} GFLOP / ({rate / 1e12:g} TFLOP/s {kind} x {reached:g})",
        ),
        Term(
            "reads",
            reads / (card.bandwidth * READS),
            f"(weights {weights / GB:.2f} + keys and values {cache / GB:.2f} + map {codes / GB:.2f} GB) / "
            f"({card.bandwidth / 1e12:g} TB/s x {READS:g})",
        ),
    ], [Term("launches", calls * LAUNCH / batch, f"{calls:,.0f} launches x {LAUNCH * 1e6:g} us / batch {batch}")]


def teacher_memory(counts: Counts, batch: int) -> float:
    """Weights, keys and values, and a few copies of the logits of the largest group."""
    largest = max(1, counts.tokens * 256 // 680) if counts.groups < counts.tokens else 1
    return counts.weights + batch * (counts.cache + 6 * 4.0 * largest * counts.codes)


def _distill(experiment: Experiment, counts: Counts, card: Card, cards: int) -> StageCost:
    settings = experiment.distill
    assert settings is not None
    from dd.distillation.memory import rows_for, step_memory
    from dd.presets.sizes import teacher_configs

    passes = 4 if settings.checkpoint_blocks else 3
    flops = passes * counts.student
    terms = [
        Term(
            "student",
            flops / (card.bf16 * PRODUCTS),
            f"{passes} x {counts.student / 1e9:,.0f} GFLOP / ({card.bf16 / 1e12:g} TFLOP/s bf16 x {PRODUCTS:g})",
        )
    ]
    steps, pairs = settings.steps + settings.second.steps, settings.pairs_per_update
    plain = settings.baseline.steps * pairs * terms[0].seconds / (steps * pairs)
    if settings.losses.perceptual:
        work = 3 * (counts.decoder + counts.perceptual)
        terms.append(
            Term(
                "perceptual",
                work / (card.bf16 * CONVOLUTIONS),
                f"3 x (decoder {counts.decoder / 1e9:,.0f} + VGG16 {counts.perceptual / 1e9:,.0f} GFLOP) / "
                f"({card.bf16 / 1e12:g} TFLOP/s bf16 x {CONVOLUTIONS:g})",
            )
        )
    if plain:
        terms.append(Term("baseline", plain, f"{settings.baseline.steps:,} steps without the perceptual term, shared"))
    memory = step_memory(*teacher_configs(experiment), settings)
    share = -(-pairs // cards)
    rows = rows_for(memory, card.memory, share) if settings.batch == "auto" else min(int(settings.batch), share)
    return StageCost("distill", steps * pairs, "pairs", terms, memory.total(rows), cards, SCALING)


def evaluations(counts: Counts, kept: Sequence[int]) -> float:
    """Whole passes of the student that several evaluations are worth: all but the last stop at what the next keeps."""
    return 1 + sum(counts.starts[group] for group in kept) / counts.tokens


def _evaluate(experiment: Experiment, counts: Counts, card: Card, cards: int) -> StageCost:
    settings = experiment.evaluate
    teacher: float = 0
    student: float = 0
    drawn = 0
    for sampler in settings.samplers:
        match sampler:
            case config.TeacherSampler():
                teacher += 1
            case config.StudentSampler():
                student += evaluations(counts, sampler.steps[1:])
            case config.TeacherInvolvedSampler():
                teacher += (sampler.steps[-1] - sampler.teacher_start) / counts.groups
                kept = [step for step in sampler.steps[1:-1] if step < sampler.teacher_start]
                student += evaluations(counts, (*kept, sampler.teacher_start))
            case config.SkipSampler() | config.OneStepSampler():
                student += 1
        drawn += not isinstance(sampler, config.RealSampler | config.ReconstructionSampler)
    terms, launches = teacher_terms(counts, card, settings.batch, teacher)
    forward = student * counts.student
    terms.append(
        Term(
            "students",
            forward / (card.bf16 * PRODUCTS),
            f"{student:.3g} x {counts.student / 1e9:,.0f} GFLOP / ({card.bf16 / 1e12:g} TFLOP/s bf16 x {PRODUCTS:g})",
        )
    )
    pictures = drawn * (counts.decoder + counts.inception)
    terms.append(
        Term(
            "pictures",
            pictures / (card.tf32 * CONVOLUTIONS),
            f"{drawn} x (decoder {counts.decoder / 1e9:,.0f} + Inception {counts.inception / 1e9:,.0f} GFLOP) / "
            f"({card.tf32 / 1e12:g} TFLOP/s TF32 x {CONVOLUTIONS:g})",
        )
    )
    return StageCost(
        "evaluate", settings.images, "images", terms, teacher_memory(counts, settings.batch), cards, 1.0, launches
    )
