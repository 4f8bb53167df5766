"""DD-LlamaGen: the teacher's trunk over continuous inputs, two heads, every position at once.

With all options off this is the official student (microsoft/distilled_decoding), names included.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dd.config import StudentOptions
from dd.errors import DDError
from dd.models.base import Condition, Groups, StudentOutput, Teacher
from dd.models.codebook import nearest_code
from dd.models.heads import ContinuousHead
from dd.models.llamagen.teacher import LlamaGenTeacher
from dd.models.llamagen.transformer import CaptionEmbedder, GPTConfig, Trunk
from dd.models.student import OptionalTerms, copy_blocks, copy_weights, fit_affine, mean_row


@dataclass(frozen=True)
class DDGPTConfig(StudentOptions, GPTConfig):
    """Sizes of the student, and its options."""

    def __post_init__(self) -> None:
        GPTConfig.__post_init__(self)
        StudentOptions.__post_init__(self)


class DDLlamaGen(Trunk, OptionalTerms):
    """(B, L, C) noise and codes to logits and codes of every position, under a plain causal mask."""

    known_codes: Tensor  # (V, C), with teacher_input only

    def __init__(self, config: DDGPTConfig) -> None:
        super().__init__(config)
        self.groups = Groups((1,) * config.block_size)
        self.tok_embeddings = nn.Linear(config.codebook_dim, config.dim)
        self.n_d_embed = nn.Embedding(2, config.dim)  # row 0 noise, row 1 data
        self.final_layer_conti = ContinuousHead(config.dim, config.codebook_dim)
        if config.teacher_input:
            self.own_embeddings = nn.Linear(config.codebook_dim, config.dim, bias=False)
            self.code_embeddings = nn.Embedding(config.vocab_size, config.dim)
            self.register_buffer("known_codes", torch.zeros(config.vocab_size, config.codebook_dim))
        if config.refinements:
            self.pass_embeddings = nn.Embedding(config.refinements, config.dim)
        self.add_terms(config, config.dim, config.codebook_dim, config.vocab_size)

    def forward(self, x: Tensor, finished: Tensor, condition: Condition) -> StudentOutput:
        x, rows = x.float(), self.cls_embedding(condition)  # (B, L, C), (B, T, D)
        mark = self._mark(finished, rows.shape[1] + x.shape[1])
        mask = self.attention_mask(condition, rows.shape[1] + x.shape[1] - self.options.teacher_input)
        if not self.options.teacher_input:
            hidden = self.run(torch.cat([rows, self.tok_embeddings(x)], 1) + mark, mask=mask)[:, -x.shape[1] :]
            return self._output(x, hidden, rows, condition, ())
        known = torch.arange(x.shape[1] - 1, device=x.device) < finished[:, None]  # (B, L - 1)
        previous = self._previous(x[:, :-1], known)

        def run(before: Tensor | None, number: int) -> Tensor:
            slots = previous
            if before is not None:
                guess = before[:, :-1].softmax(-1) @ self.code_embeddings.weight + self.pass_embeddings.weight[number]
                slots = torch.where(known[..., None], previous, guess)
            return self.run(self._inputs(x, rows, slots) + mark[:, :-1], mask=mask)[:, -x.shape[1] :]

        hidden, auxiliary = self.refine(run, lambda hidden: self._logits(x, hidden))
        return self._output(x, hidden, rows, condition, auxiliary)

    def _mark(self, finished: Tensor, length: int) -> Tensor:
        """(B, length, D): the noise-or-data embedding; data up to position T - 1 + finished."""
        position = torch.arange(length, device=finished.device)
        return self.n_d_embed((position < self.config.cls_token_num + finished[:, None]).long())

    def _inputs(self, x: Tensor, rows: Tensor, previous: Tensor) -> Tensor:
        """(B, T - 1 + L, D): the teacher's sequence with each slot's own noise added."""
        inputs = torch.cat([rows, previous], 1)
        lead = rows.shape[1] - 1
        return torch.cat([inputs[:, :lead], inputs[:, lead:] + self.own_embeddings(x)], 1)

    def _previous(self, previous: Tensor, known: Tensor) -> Tensor:
        """(B, L - 1, D): embedded previous slots; a known code gets the teacher's own embedding."""
        embedded = self.tok_embeddings(self.guessed(previous))
        if not bool(known.any()):
            return embedded
        exact = self.code_embeddings(nearest_code(previous, self.known_codes))
        return torch.where(known[..., None], exact.to(embedded.dtype), embedded)

    def _logits(self, x: Tensor, hidden: Tensor) -> Tensor:
        return self.with_terms(x, hidden, self.head(hidden))

    def _output(
        self, x: Tensor, hidden: Tensor, rows: Tensor, condition: Condition, auxiliary: tuple[Tensor, ...]
    ) -> StudentOutput:
        codes = self.final_layer_conti(hidden, self._summary(rows, condition))
        return StudentOutput(self._logits(x, hidden), codes, auxiliary)

    def _summary(self, rows: Tensor, condition: Condition) -> Tensor:
        """(B, 1, D): the class embedding, or the mean over a caption's rows."""
        if not isinstance(self.cls_embedding, CaptionEmbedder):
            return rows
        return mean_row(rows, condition.mask)

    def init_weights(self) -> None:
        super().init_weights()
        self.final_layer_conti.init_weights()
        if self.options.teacher_input:
            nn.init.zeros_(self.own_embeddings.weight)
        self.init_terms()

    @torch.no_grad()
    def initialise_from(self, teacher: Teacher) -> None:
        """Trunk, condition embedding and logits head as they are; the input layer by least squares.

        The input layer maps a code vector as nearly as a linear layer can to the teacher's embedding of that code.
        """
        if not isinstance(teacher, LlamaGenTeacher):
            raise DDError(f"initialise_from: expected a LlamaGen teacher, got {type(teacher).__name__}; match families")
        source, codebook = teacher.transformer, teacher.codebook
        self.init_weights()
        copy_weights(source, self, ("cls_embedding.", "norm.", "output."))
        copy_blocks(source.layers, self.layers)
        weight, bias = fit_affine(codebook, source.tok_embeddings.weight)
        self.tok_embeddings.weight.copy_(weight)
        self.tok_embeddings.bias.copy_(bias)
        if self.options.teacher_input:
            self.n_d_embed.weight[1] = 0
            self.known_codes.copy_(codebook)
            copy_weights(source.tok_embeddings, self.code_embeddings, ("weight",))
        self.init_terms(codebook)
