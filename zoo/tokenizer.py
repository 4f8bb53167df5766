"""Tokenizer of a data set -> zoo/<name>/tokenizer.safetensors.

Loss: absolute pixel error, a perceptual term (normalised feature maps and pooled features of the extractor) and
commitment; the codes follow their vectors by an exponential k-means (van den Oord et al. 2017, appendix A.1), and a
code that nothing chooses any more is moved onto a vector of the present batch. The first `continuous` steps decode the
vectors themselves: colours enter them then, where codes from the start hold on to what came first, light and dark.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor
from torch.nn import functional as F

from dd.checkpoints.safe import save_tensors
from dd.datasets.packed import ImageSet, load_images, packed_hash
from dd.errors import DDError
from dd.metrics.classifier import SmallClassifier
from dd.models.base import Tokenizer
from dd.models.registry import build_tokenizer, family
from dd.system.files import sha256_file
from zoo import sanity
from zoo.loop import fit, forget
from zoo.pixels import to_model
from zoo.settings import HERE, TokenizerSettings, load_settings, pick, run_zoo

log = logging.getLogger(__name__)


class KMeans:
    """Exponential moving k-means of a codebook: counts and sums of the vectors that chose each code.

    Its state lives in two buffers of its own and is rebuilt within 1 / (1 - decay) steps of a resume.
    """

    def __init__(self, weight: Tensor, decay: float, unit: bool, generator: torch.Generator) -> None:
        self.weight, self.decay, self.unit, self.generator = weight, decay, unit, generator
        self.counts = torch.ones(len(weight))
        self.sums = weight.detach().clone()
        self.idle = torch.zeros(len(weight), dtype=torch.int64)

    @torch.no_grad()
    def update(self, vectors: Tensor, tokens: Tensor) -> None:
        """vectors (N, C) and the codes (N,) that they chose."""
        number = len(self.weight)
        counts = torch.bincount(tokens, minlength=number).float()
        sums = torch.zeros_like(self.sums).index_add_(0, tokens, vectors.float())
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        self.idle = torch.where(counts > 0, 0, self.idle + 1)
        dead = torch.nonzero(self.idle > 30)[:, 0]
        if len(dead):
            rows = torch.randint(len(vectors), (len(dead),), generator=self.generator)
            mean = counts.sum() / number
            self.counts[dead], self.sums[dead], self.idle[dead] = mean, vectors[rows].float() * mean, 0
        centres = self.sums / self.counts.clamp_min(1e-3)[:, None]
        self.weight.copy_(F.normalize(centres, dim=-1) if self.unit else centres)


def perceptual(extractor: SmallClassifier, images: Tensor, targets: Tensor) -> Tensor:
    """Distance of normalised feature maps, plus the squared distance of pooled features in units of their size."""
    ours, theirs = extractor.stages(images), extractor.stages(targets)
    maps = sum(
        (F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(1).mean()
        for a, b in zip(ours, theirs, strict=True)
    )
    pooled, wanted = ours[-1].mean((2, 3)), theirs[-1].mean((2, 3))
    return maps / len(ours) + (pooled - wanted).square().mean() / wanted.square().mean()


def train(settings: TokenizerSettings, data: ImageSet, extractor: SmallClassifier, identity: object) -> Tokenizer:
    """A tokenizer trained on images, with the extractor's features as its perceptual loss. identity: see `fit`."""
    run = settings.train
    torch.manual_seed(run.seed)
    model = build_tokenizer(settings.family, settings.config)
    if data.images.shape[1] != model.image_size:
        raise DDError(
            f"tokenizer: the images have {data.images.shape[1]} pixels, the config is for {model.image_size}: "
            "change latent (or the last scale), ch_mult or patch, or the data set's image_size"
        )
    model.init_weights()  # type: ignore[operator]
    if settings.data_start:
        model.start_from_data(to_model(data.images[:500]))
    generator = torch.Generator().manual_seed(run.seed)
    codes = model.get_parameter("quantize.embedding.weight").requires_grad_(False)
    kmeans = KMeans(codes, settings.codebook_decay, family(settings.family).unit_codes, generator)
    steps, per_epoch = run.count(len(data)), len(data) // run.batch
    sanity.steps(steps, len(data), run.batch, "tokenizer")
    order: dict[int, Tensor] = {}

    def loss_of(step: int) -> dict[str, Tensor]:
        epoch, place = divmod(step, per_epoch)
        if epoch not in order:
            order.clear()
            order[epoch] = torch.randperm(len(data), generator=torch.Generator().manual_seed(run.seed * 1000 + epoch))
        rows = order[epoch][place * run.batch : (place + 1) * run.batch]
        images = to_model(data.images[rows.sort().values.numpy()])
        if run.flip and step % 2:
            images = images.flip(3)
        images = images.contiguous(memory_format=torch.channels_last)
        wrong = torch.Generator().manual_seed(run.seed * 1_000_003 + step)
        result = model.training_pass(images, step >= settings.continuous, settings.replaced, wrong)
        distance = perceptual(extractor, result.images, images)
        kmeans.update(result.vectors, result.tokens)
        error = result.images - images
        return {
            "pixel": settings.pixel * error.abs().mean() + settings.squared * error.square().mean(),
            "perceptual": settings.perceptual * min(1, (step + 1) / (settings.perceptual_warmup + 1)) * distance,
            "commitment": settings.commitment * result.commitment * (step >= settings.continuous),
        }

    model.to(memory_format=torch.channels_last)
    fit(model, loss_of, steps, run, identity, _label(settings), owner=settings.dataset)
    return model


def _label(settings: TokenizerSettings) -> str:
    return f"tokenizer {settings.family}"


@torch.no_grad()
def report(model: Tokenizer, data: ImageSet, images: int = 2000) -> dict[str, float]:
    """Pixel error and codebook use on held-out images."""
    real = to_model(data.images[:images])
    tokens = torch.cat([model.encode(part) for part in real.split(250)])
    fake = torch.cat([model.decode(model.codebook[part]) for part in tokens.split(250)])
    shares = torch.bincount(tokens.flatten(), minlength=len(model.codebook)) / tokens.numel()
    return {
        "absolute_error": round(float((fake - real).abs().mean()), 5),
        "codebook_perplexity": round(float(torch.special.entr(shares).sum().exp()), 1),
    }


def main(name: str) -> str:
    """Train the tokenizer. Returns a line for the log."""
    zoo = load_settings()
    settings = pick(zoo.tokenizers, "tokenizer", name)
    folder = HERE / "data" / settings.dataset
    weights = HERE / settings.extractor / "extractor.safetensors"
    identity = [settings, packed_hash(folder), sha256_file(weights)]
    model = train(settings, load_images(folder / "train"), SmallClassifier.load(weights), identity)
    test = load_images(folder / "test")
    about = report(model, test)
    sanity.tokenizer(
        name,
        about["absolute_error"],
        sanity.constant_error(test.images[:2000]),
        about["codebook_perplexity"],
        len(model.codebook),
    )
    target = HERE / name / "tokenizer.safetensors"
    made = {"data": settings.dataset, "family": settings.family, "config": settings.config}
    save_tensors(target, model.state_dict(), {**made, **{k: str(v) for k, v in about.items()}})
    forget(settings.dataset, identity, settings.train, _label(settings))
    return f"wrote zoo/{name}/tokenizer.safetensors: {about}"


if __name__ == "__main__":
    run_zoo(main, __doc__)
