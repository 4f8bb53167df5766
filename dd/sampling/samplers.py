"""Few-step sampling (Distilled Decoding, sections 3.3 and 3.4) and the paper's baselines, for both families.

    one step            f(e, 0)
    few steps           f(e, 0); keep the groups before t and put the *same* noise back after them; f again
    teacher-involved    the student predicts, the teacher draws groups [a, t) again, the student finishes
    onestep*, skip-n    set prediction: the unknown tokens are drawn independently of each other; both collapse

All of them return code vectors (B, L, C), ready for `teacher.decode`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from dd.errors import DDError
from dd.flow.grid import Solver
from dd.flow.map import Codes
from dd.models.base import Condition, Filters, Groups, Student, StudentOutput, Teacher
from dd.models.codebook import nearest_code
from dd.trajectories.trajectory import Mapped, decode, multinomial


def perturb(codes: Tensor, noise: Tensor, finished: Tensor, groups: Groups) -> Tensor:
    """The trajectory point X_t: `codes` in the first `finished` groups, `noise` after them.

    codes, noise: (B, L, C). finished: (B,) int64 group counts.
    """
    return torch.where(known(finished, groups)[..., None], codes, noise)


def known(finished: Tensor, groups: Groups) -> Tensor:
    """(B, L) bool: positions that lie in the first `finished` (B,) groups."""
    return groups.group_of_position(finished.device) < finished[:, None]


def final_codes(output: StudentOutput, groups: Groups, codebook: Tensor, split: int | None = None) -> Tensor:
    """(B, n, C): codebook[argmax logits] in the groups before `split`, the continuous head from there on.

    split None uses the logits everywhere.
    """
    quantised = codebook[output.logits.argmax(-1)]
    if split is None or split >= len(groups):
        return quantised
    from_logits = groups.group_of_position(quantised.device)[: quantised.shape[1]] < split
    return torch.where(from_logits[:, None], quantised, output.codes)


@torch.no_grad()
def sample(
    student: Student,
    codebook: Tensor,
    noise: Tensor,
    condition: Condition,
    steps: Sequence[int] = (0,),
    split: int | None = None,
    begun: Tensor | None = None,
    until: int | None = None,
) -> Tensor:
    """One student evaluation per entry of `steps`, each the number of groups kept before it.

    A causal student's evaluation goes no further than what the next one keeps. noise: (B, L, C). begun: (B, L, C) the
    result of the first one, if it is known already. until: the groups wanted, all by default. Returns (B, L, C), or the
    tokens of these groups. Raises DDError for steps that do not start at 0, do not rise, or lie beyond the groups.
    """
    check_steps(steps, len(student.groups))
    x = noise if begun is None else begun
    ends = (*steps, len(student.groups) if until is None else until)
    for step, stop in pairwise(ends if begun is None else ends[1:]):
        x = _evaluate(student, codebook, x, noise, condition, step, stop, split)
    return x if until is None else x[:, : student.groups.starts[until]]


@torch.no_grad()
def first_tokens(student: Student, noise: Tensor, condition: Condition) -> Tensor:
    """(B, L): the tokens of one step without a split, whose code vectors `sample` would give."""
    finished = torch.zeros(len(noise), dtype=torch.int64, device=noise.device)
    return student(noise, finished, condition).logits.argmax(-1)


@torch.no_grad()
def sample_with_teacher(
    student: Student,
    teacher: Teacher,
    noise: Tensor,
    condition: Condition,
    steps: Sequence[int],
    teacher_start: int,
    filters: Filters,
    split: int | None = None,
    solver: Solver | None = None,
    begun: Tensor | None = None,
    noise_scale: float = 1.0,
    codes: Codes | None = None,
) -> Tensor:
    """Few steps, but before the last one the teacher draws groups [teacher_start, steps[-1]) again.

    The teacher draws through the map from the same noise, so that the result stays a function of the noise (the
    authors draw at random; the distribution is the same). noise_scale: standard deviation of the student's noise, the
    map's is 1. begun: as in `sample`. codes: as in `trajectory`. Returns (B, L, C).
    """
    check_steps(steps, len(student.groups))
    if len(steps) < 2:
        raise DDError("steps must hold at least 2 entries where the teacher takes part (e.g. 0,3), got 0")
    if not 0 <= teacher_start < steps[-1]:
        raise DDError(f"teacher_start must lie in 0..{steps[-1] - 1} (before the last step), got {teacher_start}")
    codebook, groups = teacher.codebook, student.groups
    wide = noise_scale * noise
    before = [step for step in steps[:-1] if step < teacher_start]
    x = sample(student, codebook, wide, condition, before, split, begun, teacher_start) if before else wide
    prefix = nearest_code(x[:, : groups.starts[teacher_start]], codebook)
    draw = Mapped(noise, codes or Codes.prepare(codebook), solver)
    known_codes = codebook[decode(teacher, condition, filters, draw, prefix, steps[-1])]
    x = torch.cat([known_codes, wide[:, known_codes.shape[1] :]], 1)
    return _evaluate(student, codebook, x, wide, condition, steps[-1], len(groups), split)


@torch.no_grad()
def one_shot(
    predictor: Student,
    teacher: Teacher,
    condition: Condition,
    generator: torch.Generator,
    prefix: Tensor | None = None,
) -> Tensor:
    """The baselines: the teacher draws the first groups (skip-n) or none (onestep*), and the rest comes at once.

    predictor: a student trained without noise (its input is zero where nothing is known), so its logits are the
    marginals of each token given what is known; tokens are drawn from them independently. prefix: the teacher's tokens
    (B, n) of complete leading groups. Returns (B, L, C).
    """
    groups, codebook, batch = predictor.groups, teacher.codebook, len(condition)
    count = 0 if prefix is None else prefix.shape[1]
    if count not in groups.starts[:-1]:
        raise DDError(f"prefix: expected whole groups, {groups.starts[:-1]} tokens, got {count}; cut it there")
    codes = torch.zeros(batch, groups.length, codebook.shape[1], device=codebook.device)
    if prefix is not None:
        codes[:, :count] = codebook[prefix]
    finished = torch.full((batch,), groups.starts.index(count), dtype=torch.int64, device=codes.device)
    logits = predictor(codes, finished, condition).logits[:, count:]
    tokens = multinomial(generator)(logits.log_softmax(-1), slice(count, None))
    return torch.cat([codes[:, :count], codebook[tokens]], 1)


def check_steps(steps: Sequence[int], groups: int) -> None:
    """Raise DDError unless `steps` starts at 0, rises, and stays inside the groups."""
    rising = all(a < b for a, b in pairwise(steps))
    if not steps or steps[0] != 0 or not rising or steps[-1] >= groups:
        raise DDError(
            f"steps must start at 0, rise, and stay below the teacher's {groups} groups (e.g. 0 or 0,{groups // 2}), "
            f"got {','.join(map(str, steps)) or 'none'}"
        )


def _evaluate(
    student: Student,
    codebook: Tensor,
    x: Tensor,
    noise: Tensor,
    condition: Condition,
    step: int,
    stop: int,
    split: int | None,
) -> Tensor:
    """The first `stop` groups, of which `step` are known; all groups of a student that is not causal."""
    groups = student.groups
    kept, wanted = groups.starts[step], groups.starts[stop if student.causal else -1]
    finished = torch.full((len(noise),), step, dtype=torch.int64, device=noise.device)
    point = torch.cat([x[:, :kept], noise[:, kept:wanted]], 1) if step else noise[:, :wanted]
    new = final_codes(student(point, finished, condition), groups, codebook, split)
    # What is known stays as it is: it was quantised (or not) by the same split when it was predicted.
    return torch.cat([x[:, :kept], new[:, kept:]], 1) if step else new
