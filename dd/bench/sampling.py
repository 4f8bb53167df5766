"""`dd-cli bench sampling`: seconds per image of a teacher and of its one- and two-step students, measured alike."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

if TYPE_CHECKING:
    import torch

    from dd.models.base import Condition, Filters, Student, Teacher
    from dd.models.precision import Precision


@dataclass(frozen=True)
class Timing:
    """One line of the table. Seconds are medians over the repeats; memory is the most that was held meanwhile.

    limits: of drawing and decoding, if all their products ran at the rate of one large product (`dd.bench.limits`).
    speedup: against the teacher, compiled against compiled.
    """

    sampler: str
    evaluations: int
    tokens_seconds_per_image: float
    decode_seconds_per_image: float
    seconds_per_image: float
    tokens_limit: float
    decode_limit: float
    speedup: float
    peak_memory_gb: float | None


@dataclass(frozen=True)
class Plan:
    """What is measured and how."""

    model: str
    random_weights: bool
    batch: int
    repeats: int
    dtype: str
    device: str
    guidance: float
    top_k: int
    top_p: float
    compile: bool
    seed: int
    threads: int


def sampling(
    model: Annotated[str, typer.Option(help="A teacher of 'dd-cli zoo list', e.g. var-d16 or llamagen-l.")],
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Fetch nothing: speed needs only sizes.")
    ] = False,
    batch: Annotated[int, typer.Option(min=1, help="Images at once.")] = 8,
    repeats: Annotated[int, typer.Option(min=1, help="Timed runs of each sampler, after one that is not timed.")] = 3,
    dtype: Annotated[
        str, typer.Option(help="bf16 or fp32, of the transformers; auto: bf16 where it is fast.")
    ] = "auto",
    device: Annotated[str, typer.Option(help="cpu or cuda; auto: cuda where there is one.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. [default: its cores]")] = None,
    compile: Annotated[bool, typer.Option("--compile", help="Add rows with compiled blocks.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of classes, noise and random weights.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="As JSON, and into results/bench/sampling-MODEL.json.")] = False,
) -> None:
    """Time the teacher (official steps and guidance) and its one- and two-step students: same run, dtype and batch."""
    import torch

    from dd.models.precision import uses_bf16

    if device not in ("auto", "cpu", "cuda"):
        raise typer.BadParameter(f"expected auto, cpu or cuda, got {device}", param_hint="--device")
    if device == "cuda" and not torch.cuda.is_available():
        raise typer.BadParameter("expected an accelerator that torch sees, found none: 'dd-cli doctor' says why")
    device = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    if dtype not in ("auto", "bf16", "fp32"):
        raise typer.BadParameter(f"expected auto, bf16 or fp32, got {dtype}", param_hint="--dtype")
    dtype = "bf16" if uses_bf16(cast("Precision", dtype), device) else "fp32"
    torch.manual_seed(seed)
    torch.set_num_threads(threads or torch.get_num_threads())
    filters = teacher_filters(model)
    plan = Plan(
        model,
        random_weights,
        batch,
        repeats,
        dtype,
        device,
        filters.guidance,
        filters.top_k,
        filters.top_p,
        compile,
        seed,
        torch.get_num_threads(),
    )
    timings = measure(plan, *build(model, random_weights, device, dtype == "bf16"), filters)
    if json:
        typer.echo(_write(plan, timings))
    else:
        _show(plan, timings)


def teacher_filters(model: str) -> Filters:
    """The settings that the teacher's authors sample with."""
    from dd.checkpoints import zoo
    from dd.models.base import Filters

    entry = zoo.entry(model, "teacher")
    official = entry.published.get("sampling", {})
    return Filters.of({"guidance": official.get("cfg", 1.0), **official, **entry.filters})


def build(model: str, random_weights: bool, device: str, half: bool = False) -> tuple[Teacher, Student]:
    """A teacher and its student, from the zoo or with random weights of the same sizes.

    half: what may be in bfloat16 is, of the teacher before its student is made: one of them at most is all float32.
    """
    from dd.checkpoints import students, teachers, zoo
    from dd.errors import DDError
    from dd.models.registry import build_student, build_teacher, student_config

    entry = zoo.entry(model, "teacher")
    if entry.family is None:
        raise DDError(f"bench: expected a teacher of a known family, '{model}' has none; see 'dd-cli zoo list'")
    if random_weights:
        sizes = teachers.tokenizer_config(entry), entry.config or {}
        teacher = ready(build_teacher(entry.family, *sizes).to(device), half)
        return teacher, ready(build_student(entry.family, student_config(teacher)).to(device), half)
    released = [name for name, other in zoo.entries().items() if other.kind == "student" and other.teacher == model]
    if not released:
        raise DDError(f"bench: expected a released student of {model}, the zoo has none; add --random-weights")
    teacher = ready(teachers.load_teacher(model, device), half)
    return teacher, ready(students.load_student(released[0], device), half)


def ready(module: Any, half: bool) -> Any:
    """For timing alone: small random numbers where a matrix is zero (some heads start silent), bfloat16 if `half`."""
    import torch

    from dd.models.precision import store_in_bf16

    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1 and not bool(parameter.any()):
                parameter.normal_(std=0.02)
    if half:
        store_in_bf16(module)
    return module.eval().requires_grad_(False)


def measure(plan: Plan, teacher: Teacher, student: Student, filters: Filters) -> list[Timing]:
    """Time every sampler on the same classes and noise."""
    import torch

    from dd.models.compiled import compile_blocks
    from dd.models.registry import family_of
    from dd.sampling.samplers import sample
    from dd.system.progress import Progress, progress

    condition = conditions(teacher, plan.batch)
    codebook = teacher.codebook
    noise = torch.randn(plan.batch, teacher.groups.length, codebook.shape[1], device=plan.device)
    second = max(1, round(family_of(teacher).second_step * len(teacher.groups)))
    samplers: dict[str, tuple[int, Callable[[], torch.Tensor]]] = {
        "teacher": (len(teacher.groups), lambda: draw_images(teacher, condition, filters, plan.seed)),
        "dd, one step": (1, lambda: sample(student, codebook, noise, condition, (0,))),
        "dd, two steps": (2, lambda: sample(student, codebook, noise, condition, (0, second))),
    }
    limits = _limits(plan, {name: draw for name, (_, draw) in samplers.items()}, teacher)
    timings: list[Timing] = []
    bar: Progress[None] = progress(len(samplers) * (1 + plan.compile), unit="samplers", label=f"bench {plan.model}")
    with bar:
        for compiled in (False, True)[: 1 + plan.compile]:
            if compiled:
                compile_blocks(teacher)
                compile_blocks(student)
            first = 0.0
            for name, (evaluations, draw) in samplers.items():
                tokens, decode, memory = _time(plan, draw, teacher, warm_ups=int(compiled))
                total = tokens + decode
                first = first or total
                label = f"{name}, compiled" if compiled else name
                timings.append(Timing(label, evaluations, tokens, decode, total, *limits[name], first / total, memory))
                bar.update()
    return timings


def _limits(
    plan: Plan, samplers: dict[str, Callable[[], torch.Tensor]], teacher: Teacher
) -> dict[str, tuple[float, float]]:
    """Seconds per image of drawing and of decoding, if all products were as fast as a large one.

    Every sampler draws and decodes once for that, which is its warm-up as well: a large teacher takes minutes.
    """
    import torch

    from dd.bench.limits import flops, product_rate
    from dd.models.precision import autocast

    half = plan.dtype == "bf16"
    exact = product_rate(plan.device, torch.float32)
    rate = product_rate(plan.device, torch.bfloat16) if half else exact
    found = {}
    for name, draw in samplers.items():
        codes: list[torch.Tensor] = []
        with autocast("bf16" if half else "fp32", plan.device):
            drawing = flops(lambda draw=draw, codes=codes: codes.append(draw()))  # type: ignore[misc]
        decoding = flops(lambda codes=codes: teacher.decode(codes[0], chunk=16))  # type: ignore[misc]
        found[name] = drawing / rate / plan.batch, decoding / exact / plan.batch
    return found


def conditions(teacher: Teacher, batch: int) -> Condition:
    """Classes, or for a text-to-image teacher random caption states or text ids (their encoder is not timed)."""
    import torch

    from dd.text.conditions import example_captions

    device = teacher.codebook.device
    sizes: Any = teacher.get_submodule("transformer").config
    if getattr(sizes, "model_type", "c2i") == "c2i":
        return torch.arange(batch, device=device) % sizes.num_classes
    return example_captions(sizes, batch, device)


def draw_images(teacher: Teacher, condition: Condition, filters: Filters, seed: int) -> torch.Tensor:
    """The teacher's own sampling, group by group: code vectors (B, L, C)."""
    import torch

    from dd.trajectories.trajectory import sample

    generator = torch.Generator(device=teacher.codebook.device).manual_seed(seed)
    return teacher.codebook[sample(teacher, condition, filters, generator)]


def _time(
    plan: Plan, draw: Callable[[], torch.Tensor], teacher: Teacher, warm_ups: int
) -> tuple[float, float, float | None]:
    """Median seconds per image of drawing and of decoding, and the peak memory in GB; warm-ups are not counted."""
    import torch

    from dd.models.precision import autocast

    runs = []
    with torch.inference_mode(), Memory(plan.device) as memory:
        for _ in range(warm_ups + plan.repeats):
            started = _now(plan.device)
            with autocast("bf16" if plan.dtype == "bf16" else "fp32", plan.device):
                codes = draw()
            drawn = _now(plan.device)
            teacher.decode(codes, chunk=16)
            runs.append((drawn - started, _now(plan.device) - drawn))
    drawing, decoding = zip(*runs[warm_ups:], strict=True)
    return statistics.median(drawing) / plan.batch, statistics.median(decoding) / plan.batch, memory.peak_gb


def _now(device: str) -> float:
    """A clock that waits for the device's work first."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()
    return time.perf_counter()


class Memory:
    """Peak memory between entry and exit: the allocator's on an accelerator, the process's resident set on a CPU.

    `peak_gb` is None where the system does not tell.
    """

    def __init__(self, device: str) -> None:
        self.device, self.peak_gb = device, None
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    peak_gb: float | None

    def __enter__(self) -> Memory:
        if self.device == "cuda":
            import torch

            torch.cuda.reset_peak_memory_stats()
        else:
            self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.device == "cuda":
            import torch

            self.peak_gb = torch.cuda.max_memory_allocated() / 1e9
        else:
            self._done.set()
            self._watcher.join()

    def _watch(self) -> None:
        while True:
            self.peak_gb = max(_resident_gb(), self.peak_gb or 0.0)
            if self._done.wait(0.02):
                return


def _resident_gb() -> float:
    import psutil

    return psutil.Process().memory_info().rss / 1e9


def _write(plan: Plan, timings: list[Timing]) -> str:
    """The figures as JSON, which also goes to results/bench/."""
    import json

    from dd.bench.output import header
    from dd.config import project_root
    from dd.system.files import write_text

    report: dict[str, Any] = {**header(), **asdict(plan)}
    text = json.dumps(report | {"rows": [asdict(timing) for timing in timings]}, indent=1)
    write_text(project_root() / "results" / "bench" / f"sampling-{plan.model}.json", text + "\n")
    return text


def _show(plan: Plan, timings: list[Timing]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Column, Table

    from dd.system.machine import describe

    weights = "random weights" if plan.random_weights else "zoo weights"
    headings = ("steps", "draw", "limit", "decode", "limit", "image", "speed-up", "GB")
    table = Table(
        Column("sampler", no_wrap=True),
        *(Column(heading, no_wrap=True, justify="right") for heading in headings),
        padding=(0, 1, 0, 0),
        box=SIMPLE_HEAD,
        title=f"{plan.model}, {weights}, batch {plan.batch}, {plan.dtype}, {plan.device}, guidance {plan.guidance:g}",
        caption=f"{describe(plan.device)}, {plan.threads} threads; milliseconds per image; "
        "limit: all products as fast as a large one",
    )
    for t in timings:
        memory = "" if t.peak_memory_gb is None else f"{t.peak_memory_gb:.2f}"
        drawing, decoding = (t.tokens_seconds_per_image, t.tokens_limit), (t.decode_seconds_per_image, t.decode_limit)
        seconds = (*drawing, *decoding, t.seconds_per_image)
        table.add_row(t.sampler, str(t.evaluations), *(_milliseconds(s) for s in seconds), f"{t.speedup:.1f} x", memory)
    Console().print(table)


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:,.0f}" if seconds >= 0.1 else f"{1000 * seconds:.3g}"
