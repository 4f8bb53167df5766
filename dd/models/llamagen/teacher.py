"""LlamaGen's class- and caption-conditional teacher: L groups of one token, guided decoding with a KV cache."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from dd.errors import DDError
from dd.models.base import Condition, Filters, Teacher, check_classes, check_pair
from dd.models.cache import KVCache, make_cache
from dd.models.filtering import keep_likely
from dd.models.llamagen.tokenizer import VQTokenizer
from dd.models.llamagen.transformer import GPTConfig, LabelEmbedder, Trunk


class GPT(Trunk):
    """The official transformer: conditioning rows, then embedded tokens; position T - 1 + i predicts token i."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__(config)
        self.tok_embeddings = nn.Embedding(config.vocab_size, config.dim)

    def embed(self, tokens: Tensor, condition: Condition) -> Tensor:
        """Conditioning rows and the embedded tokens (B, n): (B, T + n, D)."""
        return torch.cat([self.cls_embedding(condition), self.tok_embeddings(tokens)], 1)


def guided_tokens(filters: Filters, length: int) -> int:
    """How many leading tokens are guided: none at a scale <= 1, k + 2 under `guidance_tokens` = k, else all."""
    if filters.guidance <= 1:
        return 0
    return length if filters.guidance_tokens < 0 else min(length, filters.guidance_tokens + 2)


@dataclass
class DecodingState:
    """Where a batch of B images is. With guidance there are 2 B rows: conditional, then unconditional."""

    filters: Filters
    batch: int
    guided: int  # tokens 0 .. guided-1 are guided
    cache: KVCache
    mask: Tensor | None  # (rows, T + L, T + L), captions only
    pending: Tensor | None  # (rows, n, D) input not yet run
    drawn: int  # tokens taken in so far
    logits: Tensor | None = None  # (B, 1, V) of the next token, guided
    log_probs: Tensor | None = None  # the same, filtered and normalised


class LlamaGenTeacher(Teacher):
    """A `GPT` and its `VQTokenizer`."""

    transformer: GPT
    tokenizer: VQTokenizer

    def __init__(self, transformer: GPT, tokenizer: VQTokenizer) -> None:
        super().__init__()
        check_pair(tokenizer, transformer.config.vocab_size, transformer.config.block_size)
        self.transformer = transformer
        self.tokenizer = tokenizer

    def unconditional(self, condition: Condition) -> Condition:
        embedder = self.transformer.cls_embedding
        if isinstance(embedder, LabelEmbedder):
            return torch.full_like(condition, self.transformer.config.num_classes)
        null = embedder.uncond_embedding
        return replace(condition, states=null.expand(len(condition), -1, -1).to(condition.states.dtype))

    def logits(self, tokens: Tensor, condition: Condition) -> Tensor:
        x = self.transformer.embed(tokens[:, :-1], condition)
        hidden = self.transformer.run(x, mask=self.transformer.attention_mask(condition, x.shape[1]))
        return self.transformer.head(hidden[:, self.transformer.config.cls_token_num - 1 :])

    def score(self, tokens: Tensor, condition: Condition, filters: Filters) -> Tensor:
        logits = self.logits(tokens, condition)
        guided = guided_tokens(filters, tokens.shape[1])
        if guided:
            null = self.logits(tokens[:, :guided], self.unconditional(condition))
            leading = null + filters.guidance * (logits[:, :guided] - null)
            logits = torch.cat([leading, logits[:, guided:]], 1)
        return keep_likely(logits, filters).log_softmax(-1)

    def start(self, condition: Condition, filters: Filters, prefix: Tensor | None = None) -> DecodingState:
        config, transformer = self.transformer.config, self.transformer
        if config.model_type == "c2i":
            check_classes(condition, config.num_classes)
        batch, drawn = len(condition), 0 if prefix is None else prefix.shape[1]
        if drawn > config.block_size:
            raise DDError(f"prefix: expected at most {config.block_size} tokens, got {drawn}; shorten it")
        tokens = (
            torch.empty(batch, 0, dtype=torch.int64, device=next(self.parameters()).device)
            if prefix is None
            else prefix
        )
        guided = guided_tokens(filters, config.block_size)
        length = config.cls_token_num + config.block_size
        x, mask = transformer.embed(tokens, condition), transformer.attention_mask(condition, length)
        if drawn < guided:
            x = torch.cat([x, transformer.embed(tokens, self.unconditional(condition))])
            mask = None if mask is None else mask.repeat(2, 1, 1)  # the null half keeps the caption's mask
        cache = make_cache(config.n_layer, x, config.n_head, length, config.head_dim)
        return DecodingState(filters, batch, guided, cache, mask, x, drawn)

    def guided_logits(self, state: DecodingState) -> Tensor:
        """(B, 1, V) float32 logits of the next token after guidance, before the filters."""
        if state.logits is None:
            state.logits = self._run(state)
        return state.logits

    def log_probs(self, state: DecodingState) -> Tensor:
        if state.log_probs is None:
            state.log_probs = keep_likely(self.guided_logits(state), state.filters).log_softmax(-1)
        return state.log_probs

    def _run(self, state: DecodingState) -> Tensor:
        if state.pending is None:
            raise DDError(f"decoding: all {state.drawn} tokens are drawn; start a new state for more images")
        start, end = state.cache.filled, state.cache.filled + state.pending.shape[1]
        mask = None if state.mask is None else state.mask[:, start:end, :end]
        hidden = self.transformer.run(state.pending, mask, state.cache)
        state.pending = None
        logits = self.transformer.head(hidden[:, -1:])
        if len(logits) == state.batch:
            return logits
        conditional, null = logits.chunk(2)
        return null + state.filters.guidance * (conditional - null)

    def advance(self, state: DecodingState, tokens: Tensor) -> None:
        if state.pending is not None:
            self.log_probs(state)  # the rows before these tokens must reach the cache first
        state.drawn += 1
        state.logits = state.log_probs = None
        if state.drawn == self.groups.length:
            return
        if state.drawn >= state.guided:  # from here on the unconditional half is not needed
            state.cache.keep(state.batch)
            state.mask = None if state.mask is None else state.mask[: state.batch]
        x = self.transformer.tok_embeddings(tokens)
        state.pending = torch.cat([x, x]) if state.drawn < state.guided else x
