"""Typed `params.yaml`: every experiment is validated before anything loads."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from dd.errors import DDError
from dd.sections import Section, faults
from dd.system.device import DeviceName
from dd.system.identity import fingerprint as fingerprint
from dd.system.names import check_names, hint

# A family of models is a folder of dd/models with a record in family.py.
FAMILIES = tuple(sorted(file.parent.name for file in Path(__file__).with_name("models").glob("*/family.py")))


def _check_family(family: str) -> str:
    if family not in FAMILIES:
        raise ValueError(f"expected one of {', '.join(FAMILIES)}")
    return family


Family = Annotated[str, AfterValidator(_check_family)]


class CaptionsConfig(Section):
    """Caption files of a text-to-image experiment (.txt, .csv, .parquet), relative to the project's folder."""

    train: str = Field(description="what pairs are drawn from, in turn")
    test: str = Field(description="what the evaluation draws from")
    column: str = "caption"


class TeacherConfig(Section):
    """Which teacher, and the distribution that it is sampled from (`dd.models.base.Filters`)."""

    name: str = Field(description="entry of the zoo")
    path: str | None = Field(None, description="a folder or file of your own that wins over the zoo's copy")
    nesting: str | None = Field(None, description="where the weights lie in that file: model, trainer.var_wo_ddp")
    guidance: float = Field(1.0, ge=0)
    top_k: int = Field(0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    temperature: float = Field(1.0, gt=0)
    guidance_tokens: int = Field(-1, ge=-1)
    captions: CaptionsConfig | None = Field(None, description="of a text-to-image experiment")
    random_blocks: int = Field(0, ge=0, description="a rehearsal: so many blocks, random weights; 0: the checkpoint")


class SolverConfig(Section):
    """Settings of the noise-to-token map (`dd.flow.map.Solver`); part of a shard's identity."""

    first: float = Field(0.2, gt=0, le=1)
    ratio: float = Field(1.18, gt=1, le=1.3)
    negligible: float = Field(1e-4, gt=0, le=0.01)
    max_evaluations: int = Field(100, ge=2)


class TrajectoriesConfig(Section):
    """The (noise, tokens) pairs."""

    pairs: PositiveInt = Field(description="training pairs")
    held_out: int = Field(512, ge=0, description="further pairs for the validation curves")
    shard_size: PositiveInt = 1024
    batch: PositiveInt = 256
    seed: int = Field(0, ge=0)
    precision: Literal["fp32", "tf32"] = Field("fp32", description="of the teacher's products; the map's stay fp32")
    solver: SolverConfig = SolverConfig()


@dataclass(frozen=True, kw_only=True)
class StudentOptions:
    """Additions of ours to the authors' students, which small models gain from; all off gives the authors' design.

    teacher_input: a slot reads what the teacher reads there, and its own noise. The student starts as the teacher.
    noise_guess: such a slot reads a linear guess of the codes before it, made of their noise, not the noise itself.
    noise_logits: a term of the logits that is bilinear in the slot's own noise and the codes.
    flow_steps: the logits go through so many steps of the noise-to-token map; 0 leaves it out.
    refinements: further passes of the trunk, each reading what the pass before it predicts.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    teacher_input: bool = False
    noise_logits: bool = False
    flow_steps: int = 0
    refinements: int = 0
    noise_guess: bool = False

    def __post_init__(self) -> None:
        if min(counts := (self.flow_steps, self.refinements)) < 0:
            raise DDError(f"student: expected flow_steps and refinements of 0 or more, got {counts}")
        if (self.refinements or self.noise_guess) and not self.teacher_input:
            raise DDError("student: refinements and noise_guess need teacher_input; switch it on or leave them out")


class LossConfig(Section):
    """Weights of the loss terms; 0 leaves a term (and its network) out."""

    cross_entropy: float = Field(1.0, ge=0)
    regression: float = Field(0.0, ge=0)
    perceptual: float = Field(0.0, ge=0)
    perceptual_network: str = Field("lpips", description="lpips, or an extractor of the zoo (frechet: only that)")
    auxiliary: float = Field(0.3, ge=0, description="cross-entropy of the passes before the last (refinements)")
    own_prefix: float = Field(0.0, ge=0, description="cross-entropy against the teacher's tokens behind the student's")
    soft: float = Field(0.0, ge=0, description="KL divergence from the distributions of distill.source")


class SecondPhaseConfig(Section):
    """Further steps from the averaged student, that look at what it draws and no longer only at single pairs."""

    steps: int = Field(0, ge=0, description="0: no second phase")
    rate: float = Field(0.2, gt=0, le=1, description="its peak rates, as a share of the first phase's")
    pairs: float = Field(0.3, ge=0, description="factor of the terms that compare with the pairs")
    score: float = Field(0.0, ge=0, description="score distillation against a network that learns the student's tokens")
    conditional_score: float = Field(0.0, ge=0, description="the same on noisy code vectors (Distilled Decoding 2)")
    fake_score_lr: float = Field(1e-3, gt=0, description="learning rate of that network")
    fake_score_muon_lr: float = Field(0.005, ge=0, description="Muon for its blocks' matrices; 0 leaves them to AdamW")
    warmup: int = Field(50, ge=0, description="first of its steps, in which only that network and the moments learn")
    frechet: float = Field(0.0, ge=0, description="distance of the student's pictures to the teacher's, together")
    pictures: int = Field(4096, ge=2, description="of the teacher, that frechet compares with")
    frechet_memory: PositiveInt = Field(2000, description="pictures of a trajectory point that its moments span")
    own_start: bool = Field(False, description="later points begin with the student's own tokens, as in sampling")
    guidance: float | None = Field(None, description="the teacher's in this phase; null: that of the pairs")

    @model_validator(mode="after")
    def _check(self) -> SecondPhaseConfig:
        if self.steps and not (self.pairs or self.score or self.conditional_score or self.frechet):
            raise ValueError("pairs, score, conditional_score and frechet are all 0: nothing is left to train on")
        if self.steps and self.warmup >= self.steps:
            raise ValueError(
                f"warmup must be below steps ({self.steps}), got {self.warmup}: the student would not learn"
            )
        return self


class BaselineConfig(Section):
    """The set predictor behind onestep* and skip-n: a student trained without noise."""

    steps: int = Field(0, ge=0, description="0: no such baselines")
    timesteps: tuple[int, ...] = (0,)


class ProbeConfig(Section):
    """A small Frechet distance of the student's one-step samples during training."""

    every: int = Field(0, ge=0, description="steps, a multiple of evaluate_every; 0: none")
    images: int = Field(500, ge=2)
    protocol: str = "fd-fashion"


_FREE = {"batch", "checkpoint_blocks", "decode_chunk", "log_every", "checkpoint_every", "checkpoint_minutes"}
_FREE |= {"evaluate_minutes", "trackers"}  # of no weight in `DistillConfig.recipe`


class DistillConfig(Section):
    """Training of the student."""

    steps: PositiveInt
    batch: PositiveInt | Literal["auto"] = Field(64, description="pairs at once in a process; auto: what memory takes")
    global_batch: PositiveInt | None = Field(None, description="pairs of one update, over all processes; else `batch`")
    lr: float = Field(1e-3, gt=0)
    muon_lr: float = Field(0.0, ge=0, description="Muon for block matrices at this rate; 0 leaves them to AdamW")
    weight_decay: float = Field(0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.95)
    warmup: int = Field(100, ge=0)
    final_lr: float = Field(0.02, ge=0, le=1, description="end of the cosine, as a share of lr")
    clip: float = Field(1.0, gt=0)
    ema: float = Field(0.999, ge=0, lt=1)
    ema_warmup: bool = True
    precision: Literal["bf16", "fp32", "auto"] = "auto"
    tf32: bool = Field(True, description="what is float32 on an accelerator may multiply in TF32")
    checkpoint_blocks: bool = Field(False, description="compute blocks again in the backward pass: less memory, slower")
    decode_chunk: PositiveInt = Field(4, description="images that the perceptual term decodes at once")
    seed: int = Field(0, ge=0)
    timesteps: tuple[int, ...] = Field((0,), description="trajectory points trained on: finished groups")
    source: str | None = Field(None, description="student of the zoo that is distilled further: its pairs are learnt")
    initialise: Literal["teacher", "random", "source"] = "teacher"
    student: StudentOptions = StudentOptions()
    losses: LossConfig = LossConfig()
    second: SecondPhaseConfig = SecondPhaseConfig()
    split: int | None = Field(None, ge=0, description="groups before it use the logits head, the others the other")
    loss_split: bool = Field(False, description="cross-entropy before split only, the codes' terms behind it only")
    baseline: BaselineConfig = BaselineConfig()
    probe: ProbeConfig = ProbeConfig()
    log_every: PositiveInt = 50
    evaluate_every: PositiveInt = 500
    checkpoint_every: PositiveInt = 250
    evaluate_minutes: float = Field(30.0, gt=0, description="at most so long between two measurements")
    checkpoint_minutes: float = Field(10.0, gt=0, description="at most so long between two checkpoints")
    trackers: tuple[Literal["dvclive", "tensorboard", "wandb"], ...] = ("dvclive",)

    @model_validator(mode="after")
    def _check_needs(self) -> DistillConfig:
        if self.batch == "auto" and self.global_batch is None:
            raise ValueError("batch: auto needs global_batch, the pairs of one update")
        if self.loss_split and self.split is None:
            raise ValueError("loss_split needs split, the group where the continuous head takes over")
        return self

    @property
    def pairs_per_update(self) -> int:
        return self.global_batch or int(self.batch)

    def recipe(self) -> dict[str, Any]:
        """What the weights follow from: all but how the work is divided, kept in memory and watched."""
        return {**self.model_dump(mode="json", exclude=_FREE), "global_batch": self.pairs_per_update}

    @model_validator(mode="after")
    def _check(self) -> DistillConfig:
        if not self.timesteps or 0 not in self.timesteps:
            raise ValueError(f"timesteps must hold 0 (sampling starts there), got {list(self.timesteps)}")
        if min(self.timesteps) < 0 or len(set(self.timesteps)) != len(self.timesteps):
            raise ValueError(f"timesteps must be different and not negative, got {list(self.timesteps)}")
        if self.probe.every % self.evaluate_every:
            raise ValueError(
                f"probe.every must be a multiple of evaluate_every ({self.evaluate_every}), got {self.probe.every}"
            )
        losses = self.losses
        if (losses.soft or self.initialise == "source") and self.source is None:
            raise ValueError("losses.soft and initialise: source need distill.source, a student of the zoo: name one")
        if losses.cross_entropy + losses.regression + losses.perceptual + losses.own_prefix + losses.soft == 0:
            raise ValueError("at least one loss weight must be above 0")
        if self.second.steps and self.second.frechet:
            if self.pairs_per_update < len(self.timesteps):
                raise ValueError(
                    f"second.frechet needs a row of every timestep in a batch, got a batch of {self.pairs_per_update}"
                )
            if losses.perceptual_network == "lpips":
                raise ValueError("second.frechet needs pooled features: name an extractor as losses.perceptual_network")
        return self


class _Sampler(Section):
    label: str | None = Field(None, description="name in tables; default made from the settings")


class RealSampler(_Sampler):
    """Training images against the reference: the floor of the metric itself."""

    name: Literal["real"]


class ReconstructionSampler(_Sampler):
    """Tokenizer reconstructions: the floor of every model that uses this tokenizer."""

    name: Literal["reconstruction"]


class _Drawn(_Sampler):
    """What may be set after training; selected_on: the reference it was chosen on (`dd-cli select` writes both)."""

    noise_scale: float = Field(1.0, gt=0, description="standard deviation of the noise: above 1 for more variety")
    selected_on: str | None = Field(None, description="never the reference that the experiment is measured against")


class TeacherSampler(_Drawn):
    """The teacher itself, token by token."""

    name: Literal["teacher"]
    guidance: float | None = Field(None, ge=0, description="of this row alone; default: that of the pairs")
    temperature: float | None = Field(None, gt=0, description="likewise")


class StudentSampler(_Drawn):
    """Distilled Decoding: the student is evaluated once per entry of `steps` (finished groups)."""

    name: Literal["dd"]
    steps: tuple[int, ...] = (0,)
    split: int | None = Field(None, ge=0)
    passes: PositiveInt | None = Field(None, description="of its transformer in an evaluation: any other is refused")


class TeacherInvolvedSampler(_Drawn):
    """Student, then the teacher re-draws groups [teacher_start, steps[-1]), then the student (paper, section 3.4).

    noise_scale is that of the student's noise; the map's is 1.
    """

    name: Literal["dd+teacher"]
    steps: tuple[int, ...]
    teacher_start: int = Field(ge=0)
    split: int | None = Field(None, ge=0)
    passes: PositiveInt | None = Field(None, description="of its transformer in an evaluation: any other is refused")
    released_prefix: bool = Field(False, description="the prefix as the authors' released code takes it in")


class SkipSampler(_Sampler):
    """Teacher for all but the last n groups, the rest in one shot (the paper's skip-n)."""

    name: Literal["skip"]
    n: PositiveInt


class OneStepSampler(_Sampler):
    """All tokens independently, from the condition alone (the paper's onestep*)."""

    name: Literal["onestep*"]


Sampler = Annotated[
    RealSampler
    | ReconstructionSampler
    | TeacherSampler
    | StudentSampler
    | TeacherInvolvedSampler
    | SkipSampler
    | OneStepSampler,
    Field(discriminator="name"),
]


class EvaluateConfig(Section):
    """How an experiment is evaluated: protocol, number of images, the samplers that become rows."""

    protocol: str = "fd-fashion"
    images: int = Field(10_000, ge=2)
    seed: int = Field(1, ge=0)
    batch: PositiveInt = 250
    precision: Literal["bf16", "fp32", "auto"] = Field("auto", description="of the transformers; all else is float32")
    reference: str | None = Field(None, description="reference file of your own; default the protocol's")
    allow_missing: tuple[str, ...] = Field((), description="what may be absent: the metric network's name, reference")
    samplers: tuple[Sampler, ...]


class Experiment(Section):
    """One key of `experiments`: a teacher, and what is made of it."""

    family: Family
    device: DeviceName = Field("auto", description="where stages compute; never a reason to run one again")
    condition: Literal["class", "text"] = "class"
    teacher: TeacherConfig
    trajectories: TrajectoriesConfig | None = None
    distill: DistillConfig | None = None
    student: str | None = Field(None, description="zoo entry of a released student: nothing is distilled")
    evaluate: EvaluateConfig

    @model_validator(mode="after")
    def _check(self) -> Experiment:
        if (self.distill is None) == (self.student is None):
            raise ValueError("needs exactly one of 'distill' (train a student) and 'student' (fetch a released one)")
        if self.distill is not None and self.trajectories is None:
            raise ValueError("'distill' needs 'trajectories'")
        if (self.condition == "text") != (self.teacher.captions is not None):
            raise ValueError("condition 'text' and teacher.captions belong together: expected both or neither")
        return self


class Params(Section):
    """The whole of params.yaml."""

    experiments: Annotated[dict[str, Experiment], AfterValidator(check_names)]


def project_root() -> Path:
    """The folder that holds params.yaml and zoo/.

    $DD_ROOT, else the nearest above the working directory, else the checkout that this file is in, else the copy of the
    small networks that a wheel brings along.
    """
    if root := os.environ.get("DD_ROOT"):
        return Path(root)
    package = Path(__file__).resolve().parent
    for folder in (Path.cwd(), *Path.cwd().parents, package.parent, package / "shipped"):
        if (folder / "params.yaml").is_file() and (folder / "zoo").is_dir():
            return folder
    return package.parent


def validate(data: Any, source: str = "params.yaml") -> Params:
    """Check a params.yaml's content. Raises DDError with one line that lists every fault."""
    try:
        return Params.model_validate(data)
    except ValidationError as error:
        raise DDError(f"{source}: {faults(error, {field.name for field in fields(StudentOptions)})}") from None


def load_params(path: Path | None = None) -> Params:
    """Read and check params.yaml. Raises DDError."""
    path = path or project_root() / "params.yaml"
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DDError(f"expected {path.name} in {path.parent}, found none; run from the project's folder") from None
    except yaml.YAMLError as error:
        raise DDError(f"{path.name}: not valid YAML ({' '.join(str(error).split())})") from None
    return validate(data, path.name)


def load_experiment(name: str, path: Path | None = None) -> Experiment:
    """One experiment of params.yaml. Raises DDError that offers the nearest names."""
    experiments = load_params(path).experiments
    if name not in experiments:
        raise DDError(f"no experiment '{name}' in params.yaml; {hint(name, sorted(experiments))}")
    return experiments[name]
