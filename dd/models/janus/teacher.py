"""Janus's teacher: L groups of one token, guided decoding with transformers' static cache."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dd.errors import DDError
from dd.models.base import Condition, Filters, Teacher, check_pair
from dd.models.filtering import keep_likely
from dd.models.janus.tokenizer import JanusTokenizer
from dd.models.janus.transformer import Transformer


@dataclass
class DecodingState:
    """Where a batch of B images is. With guidance there are 2 B rows: conditional, then unconditional."""

    filters: Filters
    batch: int
    visible: Tensor  # (rows, T + L)
    cache: Any
    pending: Tensor | None  # (rows, n, D) input not yet run
    drawn: int  # tokens taken in so far
    log_probs: Tensor | None = None  # (B, 1, V) of the next token


class JanusTeacher(Teacher):
    """The drawing half of `JanusForConditionalGeneration`: a `Transformer` and its `JanusTokenizer`."""

    transformer: Transformer
    tokenizer: JanusTokenizer

    def __init__(self, transformer: Transformer, tokenizer: JanusTokenizer) -> None:
        super().__init__()
        check_pair(tokenizer, transformer.config.vocab_size, transformer.config.block_size)
        self.transformer = transformer
        self.tokenizer = tokenizer

    def unconditional(self, condition: Condition) -> Condition:
        """Padding in place of every text token but those that begin the prompt and the image; the mask stays."""
        sizes, ids = self.transformer.config, condition.states
        kept = (ids == sizes.bos) | (ids == sizes.boi)
        return replace(condition, states=torch.where(kept, ids, sizes.pad))

    def logits(self, tokens: Tensor, condition: Condition) -> Tensor:
        rows = self.transformer.prompt_rows(condition)
        x = torch.cat([rows, self.transformer.embed(tokens[:, :-1])], 1)
        hidden = self.transformer.run(x, self.transformer.visible(condition, x.shape[1]))
        return self.transformer.head(hidden[:, rows.shape[1] - 1 :])

    def score(self, tokens: Tensor, condition: Condition, filters: Filters) -> Tensor:
        check_filters(filters)
        logits = self.logits(tokens, condition)
        if filters.guidance > 1:
            logits = _guide(logits, self.logits(tokens, self.unconditional(condition)), filters)
        return keep_likely(logits, filters).log_softmax(-1)

    def start(self, condition: Condition, filters: Filters, prefix: Tensor | None = None) -> DecodingState:
        from transformers import StaticCache

        check_filters(filters)
        length, drawn = self.groups.length, 0 if prefix is None else prefix.shape[1]
        if drawn > length:
            raise DDError(f"prefix: expected at most {length} tokens, got {drawn}; shorten it")
        halves = [condition, self.unconditional(condition)] if filters.guidance > 1 else [condition]
        rows = [self.transformer.prompt_rows(half) for half in halves]
        if prefix is not None:
            rows = [torch.cat([row, self.transformer.embed(prefix)], 1) for row in rows]
        whole = condition.mask.shape[1] + length
        visible = torch.cat([self.transformer.visible(half, whole) for half in halves])
        cache = StaticCache(self.transformer.language_model.config, max_cache_len=whole)
        return DecodingState(filters, len(condition), visible, cache, torch.cat(rows), drawn)

    def log_probs(self, state: DecodingState) -> Tensor:
        if state.log_probs is None:
            if state.pending is None:
                raise DDError(f"decoding: all {state.drawn} tokens are drawn; start a new state for more images")
            hidden = self.transformer.run(state.pending, state.visible, state.cache)
            logits, state.pending = self.transformer.head(hidden[:, -1:]), None
            if len(logits) > state.batch:
                conditional, null = logits.chunk(2)
                logits = _guide(conditional, null, state.filters)
            state.log_probs = keep_likely(logits, state.filters).log_softmax(-1)
        return state.log_probs

    def advance(self, state: DecodingState, tokens: Tensor) -> None:
        if state.pending is not None:
            self.log_probs(state)  # the rows before these tokens must reach the cache first
        state.drawn, state.log_probs = state.drawn + 1, None
        if state.drawn < self.groups.length:
            row = self.transformer.embed(tokens)
            state.pending = row.repeat(len(state.visible) // state.batch, 1, 1)


def check_filters(filters: Filters) -> None:
    """Refuse what Janus's sampling has not."""
    if filters.guidance_tokens != -1:
        raise DDError(f"guidance_tokens: Janus guides every token (-1), got {filters.guidance_tokens}; leave it out")


def _guide(conditional: Tensor, null: Tensor, filters: Filters) -> Tensor:
    """uncond + s (cond - uncond)."""
    return null + filters.guidance * (conditional - null)
