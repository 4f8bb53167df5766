"""DD-VAR: the teacher's trunk over continuous inputs with one more leading level, two heads, all scales at once.

With all options off this is the official student (microsoft/distilled_decoding), names included.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dd.config import StudentOptions
from dd.errors import DDError
from dd.models.base import Groups, StudentOutput, Teacher
from dd.models.heads import ContinuousHead
from dd.models.student import OptionalTerms, copy_blocks, copy_weights
from dd.models.var.teacher import VARTeacher
from dd.models.var.tokenizer import MultiScaleConfig, MultiScaleQuantizer
from dd.models.var.transformer import Trunk, VARConfig


@dataclass(frozen=True)
class DDVARConfig(StudentOptions, VARConfig):
    """Sizes of the student (patch_nums as the teacher's), and its options."""

    share_quant_resi: int = 4

    def __post_init__(self) -> None:
        VARConfig.__post_init__(self)
        StudentOptions.__post_init__(self)


class DDVAR(Trunk, OptionalTerms):
    """(B, L, C) noise and codes to logits and codes of every position.

    Official layout: L + 1 positions over the levels (1,) + patch_nums; position 0 is the class, token i sits at
    position i + 1 and is read there; a position sees strictly lower levels and itself.
    """

    def __init__(self, config: DDVARConfig) -> None:
        levels = config.patch_nums if config.teacher_input else (1, *config.patch_nums)
        super().__init__(config, levels, strict=not config.teacher_input)
        self.groups = Groups(tuple(side * side for side in config.patch_nums))
        D = config.embed_dim
        self.n_d_embed = nn.Embedding(2, D)  # row 0 noise, row 1 data
        self.layerwise_n_d_embed = nn.ModuleList(nn.Linear(D, D) for _ in range(config.depth + 1))
        self.final_layer_conti = ContinuousHead(D, config.codebook_dim)
        if config.teacher_input:
            self.own_embed = nn.Linear(config.codebook_dim, D, bias=False)
            self.quantize = MultiScaleQuantizer(quantizer_config(config)).requires_grad_(False)
        if config.refinements:
            self.pass_embed = nn.Embedding(config.refinements, D)
        self.add_terms(config, D, config.codebook_dim, config.vocab_size)

    def forward(self, x: Tensor, finished: Tensor, condition: Tensor) -> StudentOutput:
        x, cond = x.float(), self.class_emb(condition)
        if not self.options.teacher_input:
            rows = torch.cat([self.class_rows(cond), self.embed(x, 1)], 1)  # (B, L + 1, D)
            hidden = self._run(rows, cond, self._data(self._tokens(finished) + 1, rows.shape[1]))
            return self._output(x, hidden[:, 1:], cond, ())
        data = self._data(self._tokens(finished + 1), x.shape[1])  # the scale drawn next reads data only
        known = torch.arange(x.shape[1], device=x.device) < self._tokens(finished)[:, None]  # (B, L)
        own = self.own_embed(x)

        def run(before: Tensor | None, number: int) -> Tensor:
            nonlocal own
            codes = torch.where(known[..., None], x, self.guessed(x)) if self.options.noise_guess else x
            if before is not None:
                guess = before.softmax(-1) @ self.quantize.embedding.weight
                codes, own = torch.where(known[..., None], x, guess), own + self.pass_embed.weight[number]
            rows = self.class_rows(cond)
            if codes.shape[1] > 1:
                rows = torch.cat([rows, self.embed(self._inputs(codes), 1)], 1)
            return self._run(rows + own, cond, data)

        hidden, auxiliary = self.refine(run, lambda hidden: self._logits(x, hidden, cond))
        return self._output(x, hidden, cond, auxiliary)

    def _tokens(self, finished: Tensor) -> Tensor:
        """(B,): tokens in the first `finished` groups."""
        return torch.tensor([*self.groups.starts, self.groups.length], device=finished.device)[finished]

    @staticmethod
    def _data(known: Tensor, length: int) -> Tensor:
        """(B, length, 1) bool: positions before `known` (B,) hold data, the others noise."""
        return (torch.arange(length, device=known.device) < known[:, None])[..., None]

    def _run(self, h: Tensor, cond: Tensor, data: Tensor) -> Tensor:
        """The noise-or-data embedding enters at the input, inside every block and before the heads.

        It has two rows, so the linear layers see these two, not one for each of the positions.
        """
        pair, mask = self.n_d_embed.weight, self.attn_bias_for_masking[..., : h.shape[1], : h.shape[1]]  # (2, D)
        h = h + torch.where(data, pair[1], pair[0])
        for block, linear in zip(self.blocks, self.layerwise_n_d_embed, strict=False):
            noise_row, data_row = linear(pair)
            h = block(h, cond, mask, None, torch.where(data, data_row, noise_row))
        noise_row, data_row = self.layerwise_n_d_embed[-1](pair)
        return h + torch.where(data, data_row, noise_row)

    def _inputs(self, codes: Tensor) -> Tensor:
        """(B, n - 1, C): what the teacher reads when these (B, n, C) are the codes."""
        sizes = self.groups.sizes[: self.groups.starts.index(codes.shape[1])]
        maps = self.quantize.accumulate(list(codes.split(list(sizes), 1))[:-1])
        return torch.cat([self.quantize.next_rows(f_hat, scale + 1) for scale, f_hat in enumerate(maps)], 1)

    def _logits(self, x: Tensor, hidden: Tensor, cond: Tensor) -> Tensor:
        return self.with_terms(x, hidden, self.logits_head(hidden, cond))

    def _output(self, x: Tensor, hidden: Tensor, cond: Tensor, auxiliary: tuple[Tensor, ...]) -> StudentOutput:
        return StudentOutput(self._logits(x, hidden, cond), self.final_layer_conti(hidden, cond[:, None]), auxiliary)

    def init_weights(self) -> None:
        super().init_weights()
        nn.init.normal_(self.n_d_embed.weight, std=0.02)
        for linear in self.layerwise_n_d_embed:  # silent at first, so that the trunk starts as the teacher's
            for parameter in linear.parameters():
                nn.init.zeros_(parameter)
        self.final_layer_conti.init_weights()
        if self.options.teacher_input:
            nn.init.zeros_(self.own_embed.weight)
        self.init_terms()

    @torch.no_grad()
    def initialise_from(self, teacher: Teacher) -> None:
        """Trunk, class embedding and logits head as they are; the level and place of the first token are new.

        The student's levels are the teacher's behind one more: rows 0 (the class) and 2.. are copied.
        """
        if not isinstance(teacher, VARTeacher):
            raise DDError(f"initialise_from: expected a VAR teacher, got {type(teacher).__name__}; match families")
        self.init_weights()
        source = teacher.transformer
        copy_weights(source, self, ("head", "class_emb.", "word_embed.", "pos_start"))
        copy_blocks(source.blocks, self.blocks)
        if self.options.teacher_input:
            copy_weights(source, self, ("lvl_embed.", "pos_1LC"))
            self.n_d_embed.weight[1] = 0
            self.quantize.load_state_dict(teacher.tokenizer.quantize.state_dict())
        else:
            std = math.sqrt(1 / self.config.embed_dim / 3)
            places = (self.lvl_embed.weight, source.lvl_embed.weight), (self.pos_1LC[0], source.pos_1LC[0])
            for ours, theirs in places:
                ours[0], ours[2:] = theirs[0], theirs[1:]
                nn.init.trunc_normal_(ours[1], std=std)
        self.init_terms(teacher.codebook)


def quantizer_config(config: DDVARConfig) -> MultiScaleConfig:
    """The part of a tokenizer's config that its quantizer reads."""
    return MultiScaleConfig(
        codebook_size=config.vocab_size,
        codebook_dim=config.codebook_dim,
        patch_nums=config.patch_nums,
        share_quant_resi=config.share_quant_resi,
    )
