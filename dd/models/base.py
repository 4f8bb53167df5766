"""The interfaces that all other code uses: a *teacher* with its *tokenizer*, and a *student*.

Shape letters, used everywhere in this project: B batch, L tokens of one image, C width of a code vector,
V codebook size, D transformer width, K groups, S student evaluations.

A teacher draws the L tokens of an image in K *groups*; the tokens of one group are independent given the groups
before it. LlamaGen has L groups of one token; VAR has one group per scale (1, 4, 9, ... tokens).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from dd.errors import DDError

# What an image is drawn from: class indices (B,) int64, or a batch of captions (dd.text.conditions.Captions).
Condition = Any


@dataclass(frozen=True)
class Groups:
    """Sizes of the groups in which a teacher draws its tokens, in drawing order."""

    sizes: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.sizes)

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """K+1 offsets: tokens before group g, and L at the end."""
        return (0, *accumulate(self.sizes))

    @property
    def length(self) -> int:
        """L, the number of tokens of one image."""
        return self.starts[-1]

    def slice(self, group: int) -> slice:
        """Positions of one group in the sequence."""
        return slice(self.starts[group], self.starts[group + 1])

    def group_of_position(self, device: torch.device | None = None) -> Tensor:
        """(L,) int64: the group that each position belongs to."""
        sizes = torch.tensor(self.sizes, device=device)
        return torch.repeat_interleave(torch.arange(len(self), device=device), sizes)


@dataclass(frozen=True)
class Filters:
    """How a teacher's logits become the distribution that is sampled (and that Distilled Decoding imitates).

    `guidance` is classifier-free guidance in the family's own convention (LlamaGen: uncond + s (cond - uncond),
    off at s <= 1; VAR: (1 + t) cond - t uncond with t = s * group / (K - 1), off at 0).
    `top_k` 0 and `top_p` 1 keep everything. `guidance_tokens` -1 guides every token, k guides tokens 0..k+1 only
    (LlamaGen's cfg_interval). VAR has no temperature: anything but 1 is refused there.
    """

    guidance: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    temperature: float = 1.0
    guidance_tokens: int = -1

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Filters:
        """From a mapping that may hold more, such as an experiment's teacher settings or an entry of the zoo."""
        kinds = {name: type(default) for name, default in asdict(cls()).items()}
        return cls(**{name: kind(values[name]) for name, kind in kinds.items() if name in values})


@dataclass(frozen=True)
class StudentOutput:
    """What a student predicts for every position.

    logits: (B, L, V) float32, over the codebook. codes: (B, L, C) float32, the continuous head.
    auxiliary: logits of earlier passes of a student that refines its own prediction, first pass first.
    """

    logits: Tensor
    codes: Tensor
    auxiliary: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class TrainingPass:
    """What a tokenizer makes of a batch in training.

    images: (B, 3, H, W) reconstructions. vectors: (N, C) that were quantised, without gradients; tokens: (N,) their
    codes. commitment: () how far the vectors lie from their codes.
    """

    images: Tensor
    vectors: Tensor
    tokens: Tensor
    commitment: Tensor


class Tokenizer(nn.Module, ABC):
    """Images to token indices and code vectors back to images."""

    groups: Groups
    image_size: int

    @property
    @abstractmethod
    def codebook(self) -> Tensor:
        """(V, C) float32 code vectors as they enter `decode` (LlamaGen: L2-normalised)."""

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] to token indices (B, L) int64."""

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """Code vectors (B, L, C), quantised or not, to images (B, 3, H, W) in about [-1, 1]."""

    def training_pass(
        self, images: Tensor, quantised: bool = True, replaced: float = 0.0, generator: torch.Generator | None = None
    ) -> TrainingPass:
        """Encode images (B, 3, H, W) in [-1, 1], quantise with straight-through gradients (or not at all), decode.

        replaced: share of the codes that the decoder gets wrong, drawn by `generator`. Raises DDError for what this
        tokenizer cannot do, and for one that can only be loaded.
        """
        raise DDError(f"{type(self).__name__} cannot be trained here; name a tokenizer of another family")

    def start_from_data(self, images: Tensor) -> None:
        """Set the weights that can be computed from images (N, 3, H, W) before training. Raises DDError if none can."""
        raise DDError(
            f"data_start: {type(self).__name__} has nothing to start from data; leave it out, or choose a tokenizer "
            "with a shortcut"
        )

    def check_images(self, images: Tensor) -> None:
        """Refuse images of another shape than (B, 3, image_size, image_size)."""
        if images.shape[1:] != (3, self.image_size, self.image_size):
            raise DDError(
                f"tokenizer: expected images (B, 3, {self.image_size}, {self.image_size}), got {tuple(images.shape)}; "
                "resize them first"
            )


class Teacher(nn.Module, ABC):
    """An autoregressive image model together with its tokenizer.

    Decoding::

        state = teacher.start(condition, filters)
        for group in range(len(teacher.groups)):
            log_probs = teacher.log_probs(state)            # (B, n, V), -inf where filtered out
            tokens = draw(log_probs)                         # (B, n)
            teacher.advance(state, tokens)
        images = teacher.decode(teacher.codebook[all_tokens])
    """

    tokenizer: Tokenizer
    # Whether a prefix is taken in as the authors' released code does it; None where that is no different.
    released_prefix: bool | None = None
    # Whether `Filters.temperature` may be other than 1.
    has_temperature: bool = True

    @property
    def groups(self) -> Groups:
        return self.tokenizer.groups

    @property
    def codebook(self) -> Tensor:
        """(V, C) float32."""
        return self.tokenizer.codebook

    def decode(self, codes: Tensor, chunk: int = 64) -> Tensor:
        """Code vectors (B, L, C) to images (B, 3, H, W), `chunk` images at a time."""
        return torch.cat([self.tokenizer.decode(part) for part in codes.split(chunk)])

    @abstractmethod
    def start(self, condition: Condition, filters: Filters, prefix: Tensor | None = None) -> Any:
        """A decoding state for a batch of conditions.

        prefix: (B, n) int64 tokens of complete leading groups, taken in at once.
        """

    @abstractmethod
    def log_probs(self, state: Any) -> Tensor:
        """(B, n, V) float32 log-probabilities of the next group's n tokens, after guidance and filters.

        Filtered codes are -inf. Calling it twice before `advance` costs nothing more.
        """

    @abstractmethod
    def advance(self, state: Any, tokens: Tensor) -> None:
        """Take the next group's tokens (B, n) into the state."""

    @abstractmethod
    def logits(self, tokens: Tensor, condition: Condition) -> Tensor:
        """Teacher forcing: (B, L, V) raw logits of every token given the groups before it, in one pass.

        Differentiable, without guidance or filters: what the teacher is trained on.
        """

    @abstractmethod
    def unconditional(self, condition: Condition) -> Condition:
        """The condition that stands for "no condition", of the same batch size."""

    @abstractmethod
    def score(self, tokens: Tensor, condition: Condition, filters: Filters) -> Tensor:
        """(B, L, V) float32 log-probabilities of every token given the groups before it, guided and filtered.

        Equals what `log_probs` gives group by group when the state is advanced with the same tokens.
        """


class Student(nn.Module, ABC):
    """The few-step generator: every position at once, from noise and the codes known so far.

    passes: of its transformer in one evaluation; more than one where it refines its own prediction.
    causal: no group sees a later one, so that `forward` can predict the first groups alone, as samplers ask.
    """

    groups: Groups
    passes: int = 1
    causal: bool = False

    @abstractmethod
    def forward(self, x: Tensor, finished: Tensor, condition: Condition) -> StudentOutput:
        """Predict the sequence.

        x: (B, n, C), row b holds codes in its first `finished[b]` groups and its initial noise after them; n = L, or,
        of a causal student, the number of tokens in some first groups.
        finished: (B,) int64, number of groups already known, 0..K.
        """

    @abstractmethod
    def initialise_from(self, teacher: Teacher) -> None:
        """Copy the teacher's trunk (and heads where they fit) into this student."""


def check_classes(labels: Tensor, classes: int) -> None:
    """Refuse class indices outside 0..classes (the last one means "no class"); not while a CUDA graph is recorded."""
    if labels.is_cuda and torch.cuda.is_current_stream_capturing():
        return
    if labels.numel() and not (int(labels.min()) >= 0 and int(labels.max()) <= classes):
        raise DDError(
            f"classes: expected indices 0..{classes - 1} ({classes} for none), got {int(labels.min())}.."
            f"{int(labels.max())}; check the labels or the teacher"
        )


def check_pair(tokenizer: Tokenizer, vocab_size: int, block_size: int) -> None:
    """Refuse a transformer of another number of codes or tokens than its tokenizer's."""
    codes, tokens = len(tokenizer.codebook), tokenizer.groups.length
    if (codes, tokens) != (vocab_size, block_size):
        raise DDError(
            f"teacher: expected a transformer of {codes} codes and {tokens} tokens (the tokenizer's), "
            f"got {vocab_size} codes and {block_size} tokens; pair it with its own tokenizer"
        )
