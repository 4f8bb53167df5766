"""One line for each thing that went wrong in training without an error of its own: what was found, what to do.

What makes a result worthless is a DDError; what makes it doubtful is a warning.
"""

from __future__ import annotations

import logging
import math

import numpy as np

from dd.errors import DDError

log = logging.getLogger(__name__)
NO_STEPS, FEW_STEPS = 10, 100


def steps(count: int, images: int, batch: int, label: str) -> None:
    """So few steps that a network cannot have learnt. Raises DDError below ten."""
    if count < NO_STEPS:
        raise DDError(
            f"{label}: {count} steps of {batch} from {images} images train nothing; raise steps, or lower batch"
        )
    if count < FEW_STEPS:
        log.warning(
            "%s: %d steps of %d from %d images are too few to learn from; raise steps or epochs, or lower batch",
            *(label, count, batch, images),
        )


def constant_error(images: np.ndarray) -> float:
    """Mean absolute error in [-1, 1] of the best constant picture, the median, for images (N, H, W, 3) uint8."""
    pixels = np.asarray(images, dtype=np.float32) / 127.5 - 1
    return float(np.abs(pixels - np.median(pixels, axis=0)).mean())


def tokenizer(name: str, error: float, constant: float, perplexity: float, codes: int) -> None:
    """error: absolute, of reconstructions; constant: of one picture for all; perplexity: codes in use."""
    share = error / max(constant, 1e-6)
    if share > 0.9:
        raise DDError(
            f"tokenizer {name} is not trained: its reconstructions are {error:.3f} off, one constant picture would be "
            f"{constant:.3f}; raise train.steps"
        )
    if share > 0.5:
        log.warning(
            "tokenizer %s: reconstructions are %.3f off, a constant picture %.3f: hard to recognise; raise train.steps",
            *(name, error, constant),
        )
    if perplexity < max(2, codes / 20):
        log.warning(
            "tokenizer %s: %.0f of %d codes in use (perplexity), a collapsed codebook; lower codebook_size or lr",
            *(name, perplexity, codes),
        )


def teacher(name: str, held_out: float, training: float, codes: int) -> None:
    """Negative log-likelihoods in nats a token, against ln(codes) of a guess. Raises DDError."""
    guess = math.log(codes)
    if held_out > 0.98 * guess and training > 0.98 * guess:
        raise DDError(
            f"teacher {name} is not trained: {training:.2f} nats a token, a guess has {guess:.2f}; raise train.steps"
        )
    if held_out > 1.25 * training and held_out - training > 0.1:
        log.warning(
            "teacher %s overfits: %.2f nats on training, %.2f on held-out images; bring more images, set "
            "validate_every, or make it smaller",
            *(name, training, held_out),
        )


def reference(name: str, images: int, features: int) -> None:
    """Fewer real images than a distance needs. Raises DDError below ten."""
    if images < 10:
        raise DDError(f"reference {name}: {images} test images are no sample; raise test_share or bring more images")
    if images <= 2 * features:
        log.warning(
            "reference %s: %d test images for %d features: distances are biased and compare rows of this table only; "
            "bring more images, or narrow the extractor's last channels",
            *(name, images, features),
        )


def classes(name: str, wanted: int | None, found: int) -> None:
    """Class counts of a teacher's configuration and of the data. Raises DDError."""
    if wanted is not None and wanted != found:
        raise DDError(
            f"teachers.{name}.config.num_classes: expected {found}, as the data has, got {wanted}: leave it out"
        )
