"""The teacher's loop through the map recorded once as CUDA graphs, then replayed for every further batch.

An autoregressive loop is thousands of small operations, and launching them takes longer than the work. A graph is
launched at once. It reads and writes the tensors that it was recorded with, so what changes from batch to batch is
copied into them: the condition, each group's noise, the tokens drawn. The teacher's step is recorded for each group
(its keys and values grow), the map once for each size of a group. Nothing in either reads a value back
(`dd.flow.fixed`).

Opt-in, by DD_LOOP (`dd.trajectories.worker`): it was never run on a card by us. The numbers are the eager loop's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from dd.errors import DDError
from dd.flow.grid import Solver
from dd.flow.map import Codes, FlowResult, map_noise
from dd.models.base import Condition, Filters, Groups, Teacher
from dd.trajectories.trajectory import Mapped, Trajectory, trajectory

Replay = Callable[[], Any]


class Recorder(Protocol):
    """Records work once, without doing it, and returns what does it again on the same tensors."""

    def pool(self) -> Any:
        """A pool of memory for graphs that are always replayed in the order in which they were recorded."""

    def record(self, work: Callable[[], None], pool: Any) -> Replay:
        """Record `work`."""


class CudaRecorder:
    """`torch.cuda.CUDAGraph`."""

    def pool(self) -> Any:
        return torch.cuda.graph_pool_handle()

    def record(self, work: Callable[[], None], pool: Any) -> Replay:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            work()
        return graph.replay


class GraphedLoop:
    """Trajectories of one teacher, as `dd.trajectories.trajectory.trajectory` makes them.

    The first batch of a size runs eagerly, so that every library and kernel is ready; the second is recorded and
    replayed; all others of that size are replayed. Only the size seen most recently is kept, for its memory.
    """

    def __init__(
        self, teacher: Teacher, filters: Filters, codes: Codes, solver: Solver, recorder: Recorder | None = None
    ) -> None:
        self.teacher, self.filters, self.codes, self.solver = teacher, filters, codes, solver
        self.recorder = recorder or CudaRecorder()
        if codes.width(solver) is None:
            raise DDError(
                "CUDA graphs: expected a codebook without dense spots, got one whose tokens keep too many codes; "
                "leave graphs out of DD_LOOP"
            )
        self.seen: set[int] = set()
        self.size, self.recorded = 0, None

    recorded: RecordedTeacher | None

    def __call__(self, condition: Condition, noise: Tensor) -> Trajectory:
        """The tokens that the noise (B, L, C) leads to."""
        size = len(noise)
        if size not in self.seen:
            self.seen.add(size)
            return trajectory(self.teacher, condition, noise, self.filters, self.solver, self.codes)
        if self.recorded is None or self.size != size:
            self.recorded, self.size = RecordedTeacher(self.teacher, condition, self.recorder), size
            self.maps = RecordedMaps(self.codes, self.solver, self.recorder)
        draw = RecordedDraw(noise.to(self.teacher.codebook.device), self.maps)
        return trajectory(self.recorded, condition, noise, self.filters, self.solver, self.codes, draw)  # type: ignore[arg-type]


class RecordedTeacher:
    """A teacher's loop of one batch size. It offers what `decode` asks of a teacher."""

    def __init__(self, teacher: Teacher, condition: Condition, recorder: Recorder) -> None:
        self.teacher, self.recorder, self.pool = teacher, recorder, recorder.pool()
        self.condition = _like(condition)
        self.steps: list[Replay] = []
        self.outputs: list[Tensor] = []  # (B, n, V) of each group
        self.inputs: list[Tensor] = []  # (B, n) of each group
        self.state: Any = None

    @property
    def groups(self) -> Groups:
        return self.teacher.groups

    @property
    def codebook(self) -> Tensor:
        return self.teacher.codebook

    def start(self, condition: Condition, filters: Filters) -> list[Filters]:
        """A state: the filters, and one entry more for every group that was taken in."""
        _copy(self.condition, condition)
        return [filters]

    def log_probs(self, state: list[Any]) -> Tensor:
        group = len(state) - 1
        if group == len(self.steps):
            self._record(group, state[0])
        self.steps[group]()
        return self.outputs[group]

    def advance(self, state: list[Any], tokens: Tensor) -> None:
        self.inputs[len(state) - 1].copy_(tokens)
        state.append(None)

    def _record(self, group: int, filters: Filters) -> None:
        """One group's step: what was drawn is taken in, and the next group's distribution follows."""
        batch, sizes, codes = len(self.condition), self.groups.sizes, len(self.codebook)
        device = self.codebook.device
        self.outputs.append(torch.empty(batch, sizes[group], codes, device=device))
        self.inputs.append(torch.zeros(batch, sizes[group], dtype=torch.int64, device=device))

        def work() -> None:
            if group:
                self.teacher.advance(self.state, self.inputs[group - 1])
            else:
                self.state = self.teacher.start(self.condition, filters)
            self.outputs[group].copy_(self.teacher.log_probs(self.state))

        self.steps.append(self.recorder.record(work, self.pool))


class RecordedMaps:
    """The map of so many tokens at once, for each number of them."""

    def __init__(self, codes: Codes, solver: Solver, recorder: Recorder) -> None:
        self.codes, self.solver, self.recorder = codes, solver, recorder
        self.known: dict[int, tuple[Replay, Tensor, Tensor, FlowResult]] = {}

    def __call__(self, noise: Tensor, log_probs: Tensor) -> FlowResult:
        """noise (N, C), log_probs (N, V). The result is overwritten by the next call of this size."""
        size = len(noise)
        if size not in self.known:
            e, p = torch.empty_like(noise, dtype=torch.float32), torch.empty_like(log_probs)
            whole = torch.zeros(2, size, dtype=torch.int64, device=noise.device)

            def work() -> None:
                found = map_noise(e, p, self.codes, self.solver, fixed=True)
                whole[0].copy_(found.tokens)
                whole[1].copy_(found.evaluations)

            # A pool of its own: it is replayed between any two of the teacher's steps.
            self.known[size] = self.recorder.record(work, self.recorder.pool()), e, p, FlowResult(*whole.unbind())
        replay, e, p, result = self.known[size]
        e.copy_(noise)
        p.copy_(log_probs)
        replay()
        return result


class RecordedDraw(Mapped):
    """A `Mapped` whose map is replayed."""

    def __init__(self, noise: Tensor, maps: RecordedMaps) -> None:
        super().__init__(noise, maps.codes, maps.solver)
        self.maps = maps

    def map(self, noise: Tensor, log_probs: Tensor) -> FlowResult:
        result = self.maps(noise, log_probs)
        return FlowResult(result.tokens.clone(), result.evaluations.clone())


def _like(condition: Condition) -> Condition:
    """Tensors of the same shapes: classes, or a dataclass of tensors."""
    if isinstance(condition, Tensor):
        return condition.clone()
    return replace(condition, **{field.name: getattr(condition, field.name).clone() for field in fields(condition)})


def _copy(target: Condition, source: Condition) -> None:
    if is_dataclass(target):
        for field in fields(target):
            getattr(target, field.name).copy_(getattr(source, field.name))
    else:
        target.copy_(source)
