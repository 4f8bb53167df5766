"""DD-VAR: the teacher's trunk over continuous inputs with one more leading level, two heads, all scales at once.

With both options off this is the official student (microsoft/distilled_decoding), names included.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from dd.errors import DDError
from dd.models.base import Groups, Student, StudentOutput, Teacher
from dd.models.layers import ContinuousHead, NoiseLogits, copy_weights
from dd.models.var.teacher import VARTeacher
from dd.models.var.tokenizer import MultiScaleConfig, MultiScaleQuantizer
from dd.models.var.transformer import Trunk, VARConfig


@dataclass(frozen=True)
class DDVARConfig(VARConfig):
    """Sizes of the student (patch_nums as the teacher's), and three options of ours that small models gain from.

    teacher_input: the sequence and the mask are the teacher's (a slot reads f_hat of the scales before its own),
    with the slot's own noise added; the student then starts as the teacher itself.
    noise_logits: a term of the logits that is bilinear in the slot's own noise and the codes.
    refinements: further passes of the trunk, each reading the codes that the pass before it expects (needs
    teacher_input). The weights are shared, the cost of an evaluation is not.
    """

    teacher_input: bool = False
    noise_logits: bool = False
    refinements: int = 0
    share_quant_resi: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.refinements and not self.teacher_input:
            raise DDError("student: refinements need teacher_input (a pass reads codes as the teacher does)")


class DDVAR(Trunk, Student):
    """(B, L, C) noise and codes to logits and codes of every position.

    Official layout: L + 1 positions over the levels (1,) + patch_nums; position 0 is the class, token i sits at
    position i + 1 and is read there; a position sees strictly lower levels and itself.
    """

    def __init__(self, config: DDVARConfig) -> None:
        levels = config.patch_nums if config.teacher_input else (1, *config.patch_nums)
        super().__init__(config, levels, strict=not config.teacher_input)
        self.options = config
        self.groups = Groups(tuple(side * side for side in config.patch_nums))
        D = config.embed_dim
        self.n_d_embed = nn.Embedding(2, D)  # row 0 noise, row 1 data
        self.layerwise_n_d_embed = nn.ModuleList(nn.Linear(D, D) for _ in range(config.depth + 1))
        self.final_layer_conti = ContinuousHead(D, config.codebook_dim)
        if config.teacher_input:
            self.own_embed = nn.Linear(config.codebook_dim, D, bias=False)
            self.draft_embed = nn.Parameter(torch.zeros(config.refinements, D))
            self.quantize = MultiScaleQuantizer(quantizer_config(config)).requires_grad_(False)
        if config.noise_logits:
            self.noise_term = NoiseLogits(D, config.codebook_dim, config.vocab_size)

    def forward(self, x: Tensor, finished: Tensor, condition: Tensor) -> StudentOutput:
        x, cond = x.float(), self.class_emb(condition)
        starts = torch.tensor([*self.groups.starts, self.groups.length], device=x.device)
        first = self.class_rows(cond)
        if not self.options.teacher_input:
            rows = torch.cat([first, self.embed(x, 1)], 1)  # (B, L + 1, D)
            n_d = self._kinds(rows, starts[finished] + 1)
            hidden = self._run(rows + n_d, cond, n_d)
            return StudentOutput(self._logits(x, hidden, cond), self._codes(x, hidden, cond))
        own = self.own_embed(x)  # slot i reads f_hat of earlier scales: data up to the scale drawn next
        n_d = self._kinds(own, starts[finished + 1])
        known = torch.arange(x.shape[1], device=x.device) < starts[finished][:, None]  # (B, L)
        codes, passes = x, []
        for i in range(self.options.refinements + 1):
            rows = torch.cat([first, self.embed(self._inputs(codes), 1)], 1) + own
            hidden = self._run((rows if i == 0 else rows + self.draft_embed[i - 1]) + n_d, cond, n_d)
            passes.append(self._logits(x, hidden, cond))
            if i < self.options.refinements:
                expected = passes[-1].softmax(-1) @ self.quantize.embedding.weight
                codes = torch.where(known[..., None], x, expected)
        return StudentOutput(passes[-1], self._codes(x, hidden, cond), tuple(passes[:-1]))

    def _kinds(self, rows: Tensor, data: Tensor) -> Tensor:
        """(B, n, D): the noise-or-data embedding, data in the first data[b] positions."""
        positions = torch.arange(rows.shape[1], device=rows.device)
        return self.n_d_embed((positions < data[:, None]).long())

    def _logits(self, x: Tensor, hidden: Tensor, cond: Tensor) -> Tensor:
        logits = self.logits_head(hidden, cond)[:, -x.shape[1] :]
        return logits + self.noise_term(x, hidden[:, -x.shape[1] :]) if self.options.noise_logits else logits

    def _codes(self, x: Tensor, hidden: Tensor, cond: Tensor) -> Tensor:
        return self.final_layer_conti(hidden[:, -x.shape[1] :], cond[:, None])

    def _run(self, h: Tensor, cond: Tensor, n_d: Tensor) -> Tensor:
        """Blocks, each followed by a linear map of the noise-or-data embedding; a last one before the heads."""
        for block, linear in zip(self.blocks, self.layerwise_n_d_embed, strict=False):
            h = block(h, cond, 0, self.attn_bias_for_masking, None) + linear(n_d)
        return h + self.layerwise_n_d_embed[-1](n_d)

    def _inputs(self, x: Tensor) -> Tensor:
        """(B, L - 1, C): what the teacher would read if noise were codes."""
        parts = list(x.split(list(self.groups.sizes), 1))[:-1]
        maps = self.quantize.accumulate(parts)
        return torch.cat([self.quantize.next_rows(f_hat, scale + 1) for scale, f_hat in enumerate(maps)], 1)

    def init_weights(self) -> None:
        super().init_weights()
        nn.init.normal_(self.n_d_embed.weight, std=0.02)
        for linear in self.layerwise_n_d_embed:  # silent at first, so that the trunk starts as the teacher's
            for parameter in linear.parameters():
                nn.init.zeros_(parameter)
        self.final_layer_conti.init_weights()
        if self.options.teacher_input:
            nn.init.zeros_(self.own_embed.weight)
        if self.options.noise_logits:
            self.noise_term.init_weights()

    @torch.no_grad()
    def initialise_from(self, teacher: Teacher) -> None:
        """Trunk, class embedding and logits head as they are; the level and place of the first token are new.

        The student's levels are the teacher's behind one more: rows 0 (the class) and 2.. are copied.
        """
        if not isinstance(teacher, VARTeacher):
            raise DDError(f"initialise_from: expected a VAR teacher, got {type(teacher).__name__}; use its student")
        self.init_weights()
        source = teacher.transformer
        copy_weights(source, self, ("blocks.", "head", "class_emb.", "word_embed.", "pos_start"))
        if self.options.teacher_input:
            copy_weights(source, self, ("lvl_embed.", "pos_1LC"))
            self.n_d_embed.weight[1] = 0
            self.quantize.load_state_dict(teacher.tokenizer.quantize.state_dict())
        else:
            for ours, theirs in (
                (self.lvl_embed.weight, source.lvl_embed.weight),
                (self.pos_1LC[0], source.pos_1LC[0]),
            ):
                ours[0] = theirs[0]
                ours[2:] = theirs[1:]
                nn.init.trunc_normal_(ours[1], std=math.sqrt(1 / self.config.embed_dim / 3))
        if self.options.noise_logits:
            self.noise_term.init_weights(teacher.codebook)


def quantizer_config(config: DDVARConfig) -> MultiScaleConfig:
    """The part of a tokenizer's config that its quantizer reads."""
    sizes = asdict(config)
    names = ("codebook_dim", "patch_nums", "share_quant_resi")
    return MultiScaleConfig(codebook_size=config.vocab_size, **{name: sizes[name] for name in names})
