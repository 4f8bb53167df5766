"""What the students of all families share: optional terms of the logits, refinement, copying the teacher's weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dd.config import StudentOptions
from dd.errors import DDError
from dd.models.base import Student
from dd.models.heads import FlowLogits, NoiseLogits

# Share of the codes' spread that a guess from the noise starts with. Of 1, 0.6 and 0.3 the smallest was the best
# (docs/findings-log.md); smaller ones were not compared.
GUESS = 0.2


class OptionalTerms(Student):
    """A student with the optional terms; its family gives the causal trunk, the inputs and the plain logits."""

    causal = True
    options: StudentOptions
    noise_term: NoiseLogits
    flow_term: FlowLogits
    noise_guess: nn.Linear

    def add_terms(self, options: StudentOptions, dim: int, code_dim: int, codes: int) -> None:
        """Make the optional terms, for a trunk of width `dim` and `codes` codes of width `code_dim`."""
        self.options, self.passes = options, options.refinements + 1
        if options.noise_guess:
            self.noise_guess = nn.Linear(code_dim, code_dim)
        if options.noise_logits:
            self.noise_term = NoiseLogits(dim, code_dim, codes)
        if options.flow_steps:
            self.flow_term = FlowLogits(dim, code_dim, codes, options.flow_steps)

    def init_terms(self, codebook: Tensor | None = None) -> None:
        """Their weights to start from, with the teacher's codebook (V, C) where there is one."""
        if self.options.noise_logits:
            self.noise_term.init_weights(codebook)
        if self.options.flow_steps:
            self.flow_term.init_weights(codebook)
        if self.options.noise_guess and codebook is not None:
            self.noise_guess.load_state_dict({"weight": GUESS * codebook.std(0).diag(), "bias": codebook.mean(0)})

    def guessed(self, x: Tensor) -> Tensor:
        """(B, n, C): what the trunk reads for codes that are not known, from their noise x."""
        if not self.options.noise_guess:
            return x
        with torch.autocast(x.device.type, enabled=False):
            return self.noise_guess(x)

    def with_terms(self, x: Tensor, hidden: Tensor, logits: Tensor) -> Tensor:
        """The trunk's logits (B, L, V) with the optional terms; x (B, L, C), hidden (B, L, D)."""
        if self.options.noise_logits:
            logits = logits + self.noise_term(x, hidden)
        return self.flow_term(x, hidden, logits) if self.options.flow_steps else logits

    def refine(
        self, run: Callable[[Tensor | None, int], Tensor], logits: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Hidden rows (B, L, D) of the last pass, and the logits (B, L, V) of those before it.

        run(logits of the pass before or None, number of the refinement) gives hidden rows.
        """
        hidden, auxiliary = run(None, 0), []
        for number in range(self.options.refinements):
            auxiliary.append(logits(hidden))
            hidden = run(auxiliary[-1], number)
        return hidden, tuple(auxiliary)


def copy_weights(source: nn.Module, target: nn.Module, prefixes: tuple[str, ...]) -> None:
    """Copy the source's tensors whose names start with one of the prefixes; names and shapes must agree."""
    theirs, ours = source.state_dict(), target.state_dict()
    for name, tensor in theirs.items():
        if not name.startswith(prefixes):
            continue
        if name not in ours or ours[name].shape != tensor.shape:
            got = tuple(ours[name].shape) if name in ours else "no such tensor"
            raise DDError(
                f"initialise_from: expected the teacher's {name} {tuple(tensor.shape)} in the student, got {got}; "
                "give the student the teacher's depth and width"
            )
        ours[name].copy_(tensor)


def copy_blocks(source: nn.ModuleList, target: nn.ModuleList) -> None:
    """Copy blocks; a shallower target takes evenly spaced ones, the first and the last included."""
    deep, shallow = len(source), len(target)
    if shallow > deep:
        raise DDError(f"initialise_from: expected at most the teacher's {deep} layers, got {shallow}; use fewer")
    for i, block in enumerate(target):
        copy_weights(source[round(i * (deep - 1) / max(shallow - 1, 1))], block, ("",))


def fit_affine(inputs: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
    """The least-squares weight (D, C) and bias (D,) that take inputs (V, C) to outputs (V, D)."""
    rows = torch.cat([inputs, torch.ones_like(inputs[:, :1])], 1).double().cpu()
    solution = torch.linalg.lstsq(rows, outputs.double().cpu()).solution.to(outputs)  # (C + 1, D)
    return solution[:-1].t(), solution[-1]


def mean_row(rows: Tensor, mask: Tensor) -> Tensor:
    """(B, 1, D): the mean of a caption's rows (B, T, D) where its mask (B, T) is set."""
    weight = mask[..., None].to(rows.dtype)
    return (rows * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1)
