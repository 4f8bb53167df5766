"""VAR's class-conditional teacher: one group per scale, guided decoding with a KV cache."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dd.errors import DDError
from dd.models.base import Filters, Groups, Teacher, check_classes
from dd.models.cache import KVCache, make_cache
from dd.models.filtering import check_top_k, keep_top_k, keep_top_p_ascending
from dd.models.var.tokenizer import MultiScaleTokenizer
from dd.models.var.transformer import Prepared, Trunk, VARConfig


class VAR(Trunk):
    """The official transformer. It never drops labels: that is the trainer's business."""

    def __init__(self, config: VARConfig) -> None:
        super().__init__(config, config.patch_nums, strict=False)

    def run(
        self,
        x: Tensor,
        cond: Tensor,
        cache: KVCache | None = None,
        masked: bool = True,
        prepared: list[Prepared] | None = None,
    ) -> Tensor:
        """Input rows (B, n, D) and class vectors (B, D) to hidden rows (B, n, D).

        cache: what is behind them; the rows are its next positions. From position 0 the rows may span several scales
        (block-causal); behind others they must be one scale. prepared: `self.prepare(cond)`, where it is known.
        """
        first = cache is None or not cache.filled
        mask = self.attn_bias_for_masking[:, :, : x.shape[1], : x.shape[1]] if masked and first else None
        windows = [None] * len(self.blocks) if cache is None else cache.extend(x.shape[1])
        for i, (block, window) in enumerate(zip(self.blocks, windows, strict=True)):
            x = block(x, cond, mask, window, prepared=None if prepared is None else prepared[i])
        return x

    def prepare(self, cond: Tensor) -> list[Prepared]:
        """What the blocks make of the class vectors (B, D): a third of their weights, the same for every scale."""
        return [block.prepare(cond) for block in self.blocks]  # type: ignore[operator]

    def forward(self, labels: Tensor, rows: Tensor) -> Tensor:
        """Teacher forcing. labels: (B,). rows: (B, n - 1, C), see `transformer_input`. Returns logits (B, n, V)."""
        cond = self.class_emb(labels)
        x = torch.cat([self.class_rows(cond), self.embed(rows, 1)], 1)
        return self.logits_head(self.run(x, cond), cond)


def var_filter(logits: Tensor, filters: Filters) -> Tensor:
    """Top-k (ties kept, not clamped), then top-p from the least likely up."""
    return keep_top_p_ascending(keep_top_k(logits, filters.top_k), filters.top_p)


def check_filters(filters: Filters, codes: int) -> None:
    """Refuse what VAR does not have."""
    if filters.temperature != 1 or filters.guidance_tokens >= 0:
        raise DDError(
            "VAR: expected temperature 1 and guidance_tokens -1, got "
            f"{filters.temperature:g} and {filters.guidance_tokens}; VAR has neither, use top_k, top_p and guidance"
        )
    check_top_k(filters.top_k, codes)


def guidance_of_groups(filters: Filters, groups: Groups) -> Tensor:
    """(K,) float32: t = guidance * group / (K - 1), no guidance at the first scale."""
    K = len(groups)
    return torch.tensor([filters.guidance * group / max(K - 1, 1) for group in range(K)])


@dataclass
class DecodingState:
    """Where a batch of B images is. With guidance there are 2 B rows: conditional, then unconditional."""

    filters: Filters
    batch: int
    cond: Tensor  # (rows, D)
    prepared: list[Prepared]  # of each block
    guidance: list[float]  # t of each scale
    cache: KVCache
    pending: Tensor | None  # (rows, n, D) input not yet run
    f_hat: Tensor | None  # (B, C, h, w) accumulated by the scales drawn so far
    group: int  # the scale to draw next
    logits: Tensor | None = None  # (B, n, V) of the next scale, guided
    log_probs: Tensor | None = None  # the same, filtered and normalised


class VARTeacher(Teacher):
    """A `VAR` and its `MultiScaleTokenizer`.

    released_prefix: take a prefix in as the authors' released code does, without the block-causal mask. Its logits
    are then off by 0.8 to 1.8; only for reproducing their teacher-involved numbers.
    """

    transformer: VAR
    tokenizer: MultiScaleTokenizer
    released_prefix: bool | None = False
    has_temperature: bool = False

    def __init__(self, transformer: VAR, tokenizer: MultiScaleTokenizer) -> None:
        super().__init__()
        ours, theirs = transformer.config, tokenizer.config
        expected = (theirs.codebook_size, theirs.codebook_dim, theirs.patch_nums)
        got = (ours.vocab_size, ours.codebook_dim, ours.patch_nums)
        if expected != got:
            raise DDError(
                f"teacher: expected a transformer of {expected[0]} codes of width {expected[1]} on scales "
                f"{expected[2]} (the tokenizer's), got {got[0]}, {got[1]}, {got[2]}; pair it with its own tokenizer"
            )
        self.transformer = transformer
        self.tokenizer = tokenizer

    def unconditional(self, condition: Tensor) -> Tensor:
        return torch.full_like(condition, self.transformer.config.num_classes)

    def logits(self, tokens: Tensor, condition: Tensor) -> Tensor:
        with torch.no_grad():  # the tokenizer is fixed while the transformer learns
            rows = self.tokenizer.transformer_input(self.codebook[tokens])
        return self.transformer(condition, rows)

    def score(self, tokens: Tensor, condition: Tensor, filters: Filters) -> Tensor:
        check_filters(filters, len(self.codebook))
        logits = self.logits(tokens, condition)
        if filters.guidance != 0:
            t = guidance_of_groups(filters, self.groups).to(logits.device)
            t = t[self.groups.group_of_position(logits.device)][None, :, None]  # (1, L, 1)
            logits = (1 + t) * logits - t * self.logits(tokens, self.unconditional(condition))
        return var_filter(logits, filters).log_softmax(-1)

    def start(self, condition: Tensor, filters: Filters, prefix: Tensor | None = None) -> DecodingState:
        config = self.transformer.config
        check_filters(filters, config.vocab_size)
        check_classes(condition, config.num_classes)
        drawn = 0 if prefix is None else prefix.shape[1]
        if drawn not in self.groups.starts[:-1]:
            raise DDError(f"prefix: expected whole scales, {self.groups.starts[:-1]} tokens, got {drawn}; cut it there")
        labels = torch.cat([condition, self.unconditional(condition)]) if filters.guidance else condition
        cond = self.transformer.class_emb(labels)
        x, f_hat = self.transformer.class_rows(cond), None
        if prefix is not None and drawn:
            codes = self.codebook[prefix]
            f_hat = self.tokenizer.quantize.accumulate(self.tokenizer.split(codes))[-1]
            rows = self.transformer.embed(self.tokenizer.transformer_input(codes), 1)
            x = torch.cat([x, self._double(rows, len(labels))], 1)
        cache = make_cache(config.depth, x, config.num_heads, self.groups.length, config.head_dim)
        group = self.groups.starts.index(drawn)
        prepared, guidance = self.transformer.prepare(cond), guidance_of_groups(filters, self.groups).tolist()
        return DecodingState(filters, len(condition), cond, prepared, guidance, cache, x, f_hat, group)

    @staticmethod
    def _double(rows: Tensor, wanted: int) -> Tensor:
        return rows if len(rows) == wanted else torch.cat([rows, rows])

    def guided_logits(self, state: DecodingState) -> Tensor:
        """(B, n, V) float32 logits of the next scale after guidance, before the filters."""
        if state.logits is None:
            state.logits = self._run(state)
        return state.logits

    def log_probs(self, state: DecodingState) -> Tensor:
        if state.log_probs is None:
            state.log_probs = var_filter(self.guided_logits(state), state.filters).log_softmax(-1)
        return state.log_probs

    def _run(self, state: DecodingState) -> Tensor:
        if state.pending is None:
            raise DDError(f"decoding: all {state.group} scales are drawn; start a new state for more images")
        masked = not self.released_prefix
        x = self.transformer.run(state.pending, state.cond, state.cache, masked, state.prepared)
        state.pending, t = None, state.guidance[state.group]
        rows = state.batch if t == 0 else len(x)
        last = x[:rows, -self.groups.sizes[state.group] :]
        logits = self.transformer.logits_head(last, state.cond[:rows])
        if t == 0:
            return logits
        conditional, null = logits.chunk(2)
        return (1 + t) * conditional - t * null

    def advance(self, state: DecodingState, tokens: Tensor) -> None:
        if state.pending is not None:
            self.guided_logits(state)  # the rows before these tokens must reach the cache first
        h = self.tokenizer.quantize.contribution(self.codebook[tokens], state.group)
        state.f_hat = h if state.f_hat is None else state.f_hat + h
        state.group += 1
        state.logits = state.log_probs = None
        if state.group == len(self.groups):
            return
        rows = self.tokenizer.quantize.next_rows(state.f_hat, state.group)
        state.pending = self._double(self.transformer.embed(rows, state.cache.filled), len(state.cond))
