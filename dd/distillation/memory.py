"""What a training step keeps in an accelerator's memory: counted on fake tensors, and made smaller on demand.

Counting runs the student's forward pass and the perceptual term at full width without data (torch's FakeTensorMode)
and adds up the storages that autograd saves for the backward pass. It is an upper estimate: attention is counted as a
CPU computes it, in float32, where an accelerator keeps bfloat16.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from dd.config import DistillConfig
from dd.distillation.losses import cross_entropy
from dd.errors import DDError
from dd.models.base import Student, Teacher, Tokenizer
from dd.models.registry import build_student, build_teacher, student_config
from dd.text.conditions import example_captions

# Of the memory that a device has; the rest is for its allocator's gaps, the libraries and what the estimate leaves out.
USABLE = 0.75
GB = 1e9
# Saved by LPIPS' VGG16 for an image of 256 x 256, and its weights (float32; tests/distillation/test_memory.py counts).
_LPIPS, _LPIPS_WEIGHTS, _LPIPS_SIDE = 0.16e9, 0.06e9, 256


def blocks_of(model: nn.Module) -> Iterator[nn.Module]:
    """The blocks of a trunk."""
    for name, part in model.named_modules():
        if isinstance(part, nn.ModuleList) and name.rsplit(".", 1)[-1] in ("blocks", "layers"):
            yield from part


def checkpoint_blocks(model: nn.Module) -> None:
    """Keep only the inputs of a trunk's blocks; what is inside is computed again in the backward pass.

    The same values and gradients. Names of parameters and the state dict stay.
    """
    for block in blocks_of(model):
        block.forward = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)


def keep_blocks(model: nn.Module) -> None:
    """Undo `checkpoint_blocks`."""
    for block in blocks_of(model):
        block.__dict__.pop("forward", None)


class SavedBytes:
    """Counts what autograd saves inside it: bytes of different storages, those of `given` tensors left out."""

    def __init__(self, given: Iterator[Tensor]) -> None:
        self.given = {tensor.untyped_storage()._cdata for tensor in given}
        self.storages: dict[int, torch.UntypedStorage] = {}
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self.given:
            self.storages[storage._cdata] = storage  # held, so that no other storage gets its address
        return tensor

    def __enter__(self) -> SavedBytes:
        self.hooks.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.hooks.__exit__(*error)

    @property
    def total(self) -> int:
        return sum(storage.nbytes() for storage in self.storages.values())


@dataclass(frozen=True)
class StepMemory:
    """Bytes of one training step in one process.

    weights: student with gradients, optimizer state, averaged weights and the buckets of several processes; teacher;
    the copies that the step makes of weights. activations: of one pair. images: of `decode_chunk` of them in the
    perceptual term.
    """

    weights: int
    activations: int
    images: int

    def total(self, rows: int) -> int:
        """All of it, with so many pairs at once."""
        return self.weights + rows * self.activations + self.images

    def most_rows(self, memory: float) -> int:
        """Pairs at once that fit into a device of so many bytes."""
        return int((USABLE * memory - self.weights - self.images) // self.activations)


class _Ones(TorchDispatchMode):
    """Numbers that a model reads from tensors without data are 1."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return 1 if func is torch.ops.aten._local_scalar_dense.default else func(*args, **(kwargs or {}))


@contextmanager
def without_data() -> Iterator[None]:
    """Tensors made inside have shapes and types but no data. Tables that the models keep are forgotten on both ends."""
    _forget()
    try:
        with FakeTensorMode(), _Ones(), warnings.catch_warnings():
            # `dd.models.fused` compares addresses; any number will do.
            warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")
            yield
    finally:
        _forget()


def _forget() -> None:
    for name, module in list(sys.modules.items()):
        if name.startswith("dd.models."):
            for value in vars(module).values():
                if hasattr(value, "cache_clear"):
                    value.cache_clear()


def _saved(run: Callable[[], Tensor], given: Iterator[Tensor]) -> int:
    with SavedBytes(given) as saved, torch.autocast("cpu", dtype=torch.bfloat16):
        kept = run()  # noqa: F841  (its graph must live until the bytes are added up)
    return saved.total


def _condition(student: Student, rows: int) -> Any:
    """Classes, or captions of full length, whichever the student takes."""
    config: Any = student.config
    if getattr(config, "model_type", "c2i") == "c2i":
        return torch.zeros(rows, dtype=torch.int64)
    return example_captions(config, rows)


def _activations(student: Student, width: int, checkpointed: bool) -> tuple[int, int]:
    """Bytes that a pair costs in a student's pass and its cross-entropy, and bytes that do not depend on the pairs."""

    def at(rows: int) -> int:
        x, tokens = torch.zeros(rows, student.groups.length, width), torch.zeros(rows, student.groups.length).long()

        def run() -> Tensor:
            output = student(x, torch.zeros(rows, dtype=torch.int64), _condition(student, rows))
            with torch.autocast("cpu", enabled=False):
                return cross_entropy(output.logits, tokens, tokens == 0) + output.codes.sum()

        return _saved(run, student.parameters())

    if checkpointed:
        whole, _ = _activations(student, width, False)
        checkpoint_blocks(student)
    two, four = at(2), at(4)
    a_pair, fixed = (four - two) // 2, 2 * two - four
    if checkpointed:  # one block at a time comes back
        keep_blocks(student)
        a_pair += (whole - a_pair) // sum(1 for _ in blocks_of(student))
    logits = 4 * student.groups.length * _codes(student)  # their gradient
    return a_pair + logits, fixed


def _codes(student: Student) -> int:
    config: Any = student.config
    return int(config.vocab_size)


def _images(tokenizer: Tokenizer, lpips: bool) -> int:
    """Bytes that the perceptual term saves for one image: the decoder's and the network's."""
    codes = torch.zeros(1, tokenizer.groups.length, tokenizer.codebook.shape[1], requires_grad=True)
    with SavedBytes(tokenizer.parameters()) as saved:
        kept = tokenizer.decode(codes)  # noqa: F841
    network = _LPIPS * (tokenizer.image_size / _LPIPS_SIDE) ** 2 if lpips else 0
    return saved.total + int(network)


def step_memory(
    family: str, tokenizer: dict[str, Any], transformer: dict[str, Any], config: DistillConfig
) -> StepMemory:
    """What a step takes. tokenizer, transformer: the teacher's configs. Builds nothing: some seconds at any size.

    The networks of a second phase are not counted.
    """
    with without_data():
        teacher: Teacher = build_teacher(family, tokenizer, transformer)
        student = build_student(family, student_config(teacher, **asdict(config.student)))
        width = teacher.codebook.shape[1]
        activations, copies = _activations(student, width, config.checkpoint_blocks)
        images = 0
        if config.losses.perceptual:
            images = config.decode_chunk * _images(teacher.tokenizer, config.losses.perceptual_network == "lpips")
    own = sum(p.numel() for p in student.parameters())
    theirs = sum(p.numel() for p in teacher.parameters())
    # Weights, gradients, two moments, the average and the buckets of several processes, float32 each.
    weights = 6 * 4 * own + 4 * theirs + copies + int(bool(images)) * int(_LPIPS_WEIGHTS)
    return StepMemory(weights, activations, images)


def rows_for(memory: StepMemory, device_bytes: float, share: int) -> int:
    """Pairs that a process computes at once on a device: the largest power of two that fits, at most its share.

    Raises DDError where not one fits.
    """
    most = min(memory.most_rows(device_bytes), share)
    if most < 1:
        raise DDError(
            f"batch: auto: one pair needs {memory.total(1) / GB:.0f} GB and "
            f"{USABLE:.0%} of this device's {device_bytes / GB:.0f} GB may be used: set checkpoint_blocks, lower "
            "decode_chunk, or use a larger device"
        )
    return int(2 ** (most.bit_length() - 1))
