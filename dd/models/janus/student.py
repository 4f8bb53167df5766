"""Janus's student: the teacher's trunk over continuous inputs, two heads, every position at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dd.config import StudentOptions
from dd.errors import DDError
from dd.models.base import Condition, Groups, StudentOutput, Teacher
from dd.models.codebook import nearest_code
from dd.models.heads import ContinuousHead
from dd.models.janus.teacher import JanusTeacher
from dd.models.janus.transformer import JanusConfig, Trunk
from dd.models.student import OptionalTerms, copy_blocks, copy_weights, fit_affine, mean_row


@dataclass(frozen=True)
class JanusStudentConfig(StudentOptions, JanusConfig):
    """Sizes of the student, and its options."""


class JanusStudent(Trunk, OptionalTerms):
    """(B, L, C) noise and codes to logits and codes of every position, behind the rows of the prompt."""

    known_codes: Tensor  # (V, C), with teacher_input only

    def __init__(self, config: JanusStudentConfig) -> None:
        super().__init__(config)
        self.groups = Groups((1,) * config.block_size)
        self.language_model.embed_tokens.requires_grad_(False)  # prompts stay what the teacher reads
        self.code_input = nn.Linear(config.codebook_dim, config.codebook_dim)  # a code to the teacher's embedding of it
        self.n_d_embed = nn.Embedding(2, config.dim)  # row 0 noise, row 1 data
        self.final_layer_conti = ContinuousHead(config.dim, config.codebook_dim)
        if config.teacher_input:
            self.own_input = nn.Linear(config.codebook_dim, config.dim, bias=False)
            self.generation_embeddings = nn.Embedding(config.vocab_size, config.codebook_dim)
            self.register_buffer("known_codes", torch.zeros(config.vocab_size, config.codebook_dim))
        if config.refinements:
            self.pass_embeddings = nn.Embedding(config.refinements, config.dim)
        self.add_terms(config, config.dim, config.codebook_dim, config.vocab_size)

    def forward(self, x: Tensor, finished: Tensor, condition: Condition) -> StudentOutput:
        x, rows = x.float(), self.prompt_rows(condition)  # (B, L, C), (B, T, D)
        known = torch.arange(x.shape[1], device=x.device) < finished[:, None]  # (B, L)
        mark, narrow = self.n_d_embed(known.long()), self._embed(x, known)

        def run(before: Tensor | None, number: int) -> Tensor:
            slots = self.generation_aligner(narrow)
            if before is not None:
                guess = self.generation_aligner(before.softmax(-1) @ self.generation_embeddings.weight)
                slots = torch.where(known[..., None], slots, guess + self.pass_embeddings.weight[number])
            inputs = torch.cat([rows, slots + mark], 1)
            if self.options.teacher_input:  # slot i reads the slot before it, and its own noise
                lead = rows.shape[1] - 1
                inputs = torch.cat([inputs[:, :lead], inputs[:, lead:-1] + self.own_input(x)], 1)
            return self.run(inputs, self.visible(condition, inputs.shape[1]))[:, -x.shape[1] :]

        def logits(hidden: Tensor) -> Tensor:
            return self.with_terms(x, hidden, self.head(hidden))

        hidden, auxiliary = self.refine(run, logits)
        return StudentOutput(logits(hidden), self.final_layer_conti(hidden, mean_row(rows, condition.mask)), auxiliary)

    def _embed(self, x: Tensor, known: Tensor) -> Tensor:
        """(B, L, C): noise and codes as the aligner reads them; a known code gets the teacher's own embedding."""
        narrow = self.code_input(self.guessed(x))
        if not (self.options.teacher_input and bool(known.any())):
            return narrow
        exact = self.generation_embeddings(nearest_code(x, self.known_codes))
        return torch.where(known[..., None], exact.to(narrow.dtype), narrow)

    def init_weights(self) -> None:
        """transformers has initialised its own parts; ours are silent at first."""
        nn.init.normal_(self.n_d_embed.weight, std=0.02)
        self.final_layer_conti.init_weights()
        if self.options.teacher_input:
            nn.init.zeros_(self.own_input.weight)
        if self.options.refinements:
            nn.init.normal_(self.pass_embeddings.weight, std=0.02)
        self.init_terms()

    @torch.no_grad()
    def initialise_from(self, teacher: Teacher) -> None:
        """Trunk, aligner and logits head as they are; the input layer by least squares, code to embedding."""
        if not isinstance(teacher, JanusTeacher):
            raise DDError(f"initialise_from: expected a Janus teacher, got {type(teacher).__name__}; match families")
        source, codebook = teacher.transformer, teacher.codebook
        self.init_weights()
        whole = ("language_model.embed_tokens.", "language_model.norm.", "generation_aligner.", "generation_head.")
        copy_weights(source, self, whole)
        copy_blocks(source.language_model.layers, self.language_model.layers)
        weight, bias = fit_affine(codebook, source.generation_embeddings.weight)
        self.code_input.load_state_dict({"weight": weight, "bias": bias})
        if self.options.teacher_input:
            self.n_d_embed.weight[1] = 0
            self.known_codes.copy_(codebook)
            copy_weights(source, self, ("generation_embeddings.",))
        self.init_terms(codebook)
