"""DD-LlamaGen: the teacher's trunk over continuous inputs, two heads, every position at once.

With both options off this is the official student (microsoft/distilled_decoding), names included.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dd.codebook import nearest_code
from dd.errors import DDError
from dd.models.base import Condition, Groups, Student, StudentOutput, Teacher
from dd.models.layers import ContinuousHead, NoiseLogits, copy_weights
from dd.models.llamagen.teacher import LlamaGenTeacher
from dd.models.llamagen.transformer import GPTConfig, Trunk


@dataclass(frozen=True)
class DDGPTConfig(GPTConfig):
    """Sizes of the student, and three options of ours that small models gain from.

    teacher_input: the sequence is the teacher's (slot i reads token i - 1, embedded by the teacher where it is
    known), with the slot's own noise added; the student then starts as the teacher itself.
    noise_logits: a term of the logits that is bilinear in the slot's own noise and the codes.
    refinements: further passes of the trunk, each reading the tokens that the pass before it expects (needs
    teacher_input). The weights are shared, the cost of an evaluation is not.
    """

    teacher_input: bool = False
    noise_logits: bool = False
    refinements: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.refinements and not self.teacher_input:
            raise DDError("student: refinements need teacher_input (a pass reads tokens as the teacher does)")


class DDLlamaGen(Trunk, Student):
    """(B, L, C) noise and codes to logits and codes of every position, under a plain causal mask."""

    known_codes: Tensor  # (V, C), with teacher_input only

    def __init__(self, config: DDGPTConfig) -> None:
        super().__init__(config)
        self.options = config
        self.groups = Groups((1,) * config.block_size)
        self.tok_embeddings = nn.Linear(config.codebook_dim, config.dim)
        self.n_d_embed = nn.Embedding(2, config.dim)  # row 0 noise, row 1 data
        self.final_layer_conti = ContinuousHead(config.dim, config.codebook_dim)
        if config.teacher_input:
            self.own_embeddings = nn.Linear(config.codebook_dim, config.dim, bias=False)
            self.code_embeddings = nn.Embedding(config.vocab_size, config.dim)
            self.draft_embed = nn.Parameter(torch.zeros(config.refinements, config.dim))
            self.register_buffer("known_codes", torch.zeros(config.vocab_size, config.codebook_dim))
        if config.noise_logits:
            self.noise_term = NoiseLogits(config.dim, config.codebook_dim, config.vocab_size)

    def forward(self, x: Tensor, finished: Tensor, condition: Condition) -> StudentOutput:
        T, L = self.config.cls_token_num, x.shape[1]
        rows = self.cls_embedding(condition)  # (B, T, D)
        x = x.float()
        length = T + L - 1 if self.options.teacher_input else T + L
        data = torch.arange(length, device=x.device) <= T - 1 + finished[:, None]  # (B, positions)
        kind, mask = self.n_d_embed(data.long()), self.attention_mask(condition, length)
        if not self.options.teacher_input:
            hidden = self.run(torch.cat([rows, self.tok_embeddings(x)], 1) + kind, mask=mask)[:, -L:]
            return StudentOutput(self._logits(x, hidden), self._codes(rows, hidden, condition))
        base = kind + F.pad(self.own_embeddings(x), (0, 0, T - 1, 0))  # a slot's own noise stands from row T - 1 on
        known = torch.arange(L - 1, device=x.device) < finished[:, None]  # (B, L - 1)
        previous, passes = self._previous(x, known), []
        for i in range(self.options.refinements + 1):
            hidden = self.run(torch.cat([rows, previous], 1) + base, mask=mask)[:, -L:]
            passes.append(self._logits(x, hidden))
            if i < self.options.refinements:
                expected = passes[-1][:, :-1].softmax(-1).to(hidden.dtype) @ self.code_embeddings.weight.to(
                    hidden.dtype
                )
                previous = torch.where(known[..., None], previous.to(hidden.dtype), expected + self.draft_embed[i])
        return StudentOutput(passes[-1], self._codes(rows, hidden, condition), tuple(passes[:-1]))

    def _logits(self, x: Tensor, hidden: Tensor) -> Tensor:
        logits = self.head(hidden)
        return logits + self.noise_term(x, hidden) if self.options.noise_logits else logits

    def _codes(self, rows: Tensor, hidden: Tensor, condition: Condition) -> Tensor:
        return self.final_layer_conti(hidden, self._summary(rows, condition))

    def _previous(self, x: Tensor, known: Tensor) -> Tensor:
        """(B, L - 1, D): the previous slot's input; a known code gets the teacher's own embedding."""
        previous = x[:, :-1]
        embedded = self.tok_embeddings(previous)
        if not bool(known.any()):
            return embedded
        exact = self.code_embeddings(nearest_code(previous, self.known_codes))
        return torch.where(known[..., None], exact.to(embedded.dtype), embedded)

    def _summary(self, rows: Tensor, condition: Condition) -> Tensor:
        """(B, 1, D): the class embedding, or the mean over a caption's rows."""
        if self.config.model_type == "c2i":
            return rows
        weight = condition.mask[..., None].to(rows.dtype)
        return (rows * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1)

    def init_weights(self) -> None:
        super().init_weights()
        self.final_layer_conti.init_weights()
        if self.options.teacher_input:
            nn.init.zeros_(self.own_embeddings.weight)
        if self.options.noise_logits:
            self.noise_term.init_weights()

    @torch.no_grad()
    def initialise_from(self, teacher: Teacher) -> None:
        """Trunk, condition embedding and logits head as they are; the input layer by least squares.

        The input layer maps a code vector as nearly as a linear layer can to the teacher's embedding of that code.
        """
        if not isinstance(teacher, LlamaGenTeacher):
            raise DDError(
                f"initialise_from: expected a LlamaGen teacher, got {type(teacher).__name__}; use its student"
            )
        self.init_weights()
        copy_weights(teacher.transformer, self, ("cls_embedding.", "layers.", "norm.", "output."))
        codebook = teacher.codebook
        weight, bias = fit_affine(codebook, teacher.transformer.tok_embeddings.weight)
        self.tok_embeddings.weight.copy_(weight)
        self.tok_embeddings.bias.copy_(bias)
        if self.options.teacher_input:
            self.n_d_embed.weight[1] = 0
            self.known_codes.copy_(codebook)
            copy_weights(teacher.transformer.tok_embeddings, self.code_embeddings, ("weight",))
        if self.options.noise_logits:
            self.noise_term.init_weights(codebook)


def fit_affine(inputs: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
    """The least-squares weight (D, C) and bias (D,) that take inputs (V, C) to outputs (V, D)."""
    rows = torch.cat([inputs, torch.ones_like(inputs[:, :1])], 1).double().cpu()
    solution = torch.linalg.lstsq(rows, outputs.double().cpu()).solution.to(outputs)  # (C + 1, D)
    return solution[:-1].t(), solution[-1]
