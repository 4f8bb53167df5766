"""Tokenizer of a data set -> zoo/<name>/tokenizer.safetensors.

Loss: absolute pixel error, a perceptual term (normalised feature maps and pooled features of the extractor) and
commitment; the codes follow their vectors by an exponential k-means (van den Oord et al. 2017, appendix A.1), and a
code that nothing chooses any more is moved onto a vector of the present batch. The first `continuous` steps decode the
vectors themselves: colours enter them then, where codes from the start hold on to what came first, light and dark.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from dd.checkpoints.safe import save_tensors
from dd.datasets.packed import ImageSet, load_images
from dd.errors import DDError
from dd.metrics.classifier import SmallClassifier
from dd.models.base import Tokenizer
from dd.models.llamagen.tokenizer import VQTokenizer
from dd.models.registry import build_tokenizer, family
from dd.models.var.tokenizer import MultiScaleTokenizer
from zoo.extractor import to_model
from zoo.loop import fit
from zoo.settings import HERE, TokenizerSettings, load_settings, pick, run_zoo

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pass:
    """One training pass: images (B, 3, H, W), vectors (N, C) that were quantised, their tokens (N,), commitment ()."""

    images: Tensor
    vectors: Tensor
    tokens: Tensor
    commitment: Tensor


def replace_some(codes: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Codes (B, C, h, w) with a share of the places given to what stands at other places of the batch."""
    B, C, h, w = codes.shape
    rows = codes.permute(0, 2, 3, 1).flatten(0, 2)  # (B h w, C)
    others = rows[torch.randint(len(rows), (len(rows),), generator=generator)].detach()
    wrong = torch.rand(len(rows), 1, generator=generator) < share
    return torch.where(wrong, others, rows).view(B, h, w, C).permute(0, 3, 1, 2)


def training_pass(
    model: Tokenizer,
    images: Tensor,
    quantised: bool = True,
    replaced: float = 0.0,
    generator: torch.Generator | None = None,
) -> Pass:
    """Encode, quantise with straight-through gradients (or, LlamaGen's only, not at all), decode.

    replaced: share of LlamaGen's codes that the decoder gets wrong, drawn by `generator`.
    """
    if isinstance(model, VQTokenizer):
        z = model.encode_continuous(images)
        unit = F.normalize(z.float(), dim=1)
        codes, chosen = model.quantise(z)
        commitment = (unit - codes.detach()).square().sum(1).mean()
        if replaced:
            assert generator
            codes = replace_some(codes, replaced, generator)
        decoded = model.decode_map(codes if quantised else F.normalize(z.float(), dim=1))
        vectors = unit.detach().permute(0, 2, 3, 1).flatten(0, 2)
        return Pass(decoded, vectors, chosen.flatten(), commitment)
    if isinstance(model, MultiScaleTokenizer):
        f = model.encode_continuous(images)
        quantizer = model.quantize
        tokens, maps = quantizer.quantise(f)
        residuals = [f.detach(), *(f.detach() - f_hat.detach() for f_hat in maps[:-1])]
        rows = [quantizer.shrink(r, k).flatten(2).transpose(1, 2).flatten(0, 1) for k, r in enumerate(residuals)]
        f_hat = maps[-1]
        decoded = model.decode_map(f + (f_hat - f).detach())
        # phi learns to bring f_hat close to f after every scale, f is held to what can be written. Both errors are in
        # units of f's own variance, and that is held near 1: otherwise f, its codes and phi grow without end.
        power = f.detach().square().mean()
        fit_error = torch.stack([(m - f.detach()).square().mean() for m in maps]).mean() / power
        commitment = (f - f_hat.detach()).square().mean() / power
        commitment = commitment + fit_error + (f.square().mean() - 1).square()
        return Pass(decoded, torch.cat(rows), torch.cat([t.flatten() for t in tokens]), commitment)
    raise TypeError(type(model).__name__)


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


@torch.no_grad()
def start_from_data(model: Tokenizer, images: Tensor) -> None:
    """Begin with the shortcut at the principal components of images (N, 3, H, W), and with little of the networks."""
    if not isinstance(model, VQTokenizer) or model.shortcut is None:
        raise DDError(
            "data_start: expected a tokenizer of family llamagen with shortcut: true; set it, or leave this out"
        )
    model.shortcut.start_from(images)
    for last in (model.decoder.conv_out, model.quant_conv):
        assert last.bias is not None
        last.weight.mul_(0.1)
        last.bias.zero_()


def train(settings: TokenizerSettings, data: ImageSet, extractor: SmallClassifier, identity: object) -> Tokenizer:
    run = settings.train
    torch.manual_seed(run.seed)
    model = build_tokenizer(settings.family, settings.config)
    model.init_weights()  # type: ignore[operator]
    if settings.data_start:
        start_from_data(model, to_model(data.images[:500]))
    generator = torch.Generator().manual_seed(run.seed)
    codes = model.get_parameter("quantize.embedding.weight").requires_grad_(False)
    kmeans = KMeans(codes, settings.codebook_decay, family(settings.family).unit_codes, generator)
    per_epoch = len(data) // run.batch
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
        result = training_pass(model, images, step >= settings.continuous, settings.replaced, wrong)
        distance = perceptual(extractor, result.images, images)
        kmeans.update(result.vectors, result.tokens)
        error = result.images - images
        return {
            "pixel": settings.pixel * error.abs().mean() + settings.squared * error.square().mean(),
            "perceptual": settings.perceptual * min(1, (step + 1) / (settings.perceptual_warmup + 1)) * distance,
            "commitment": settings.commitment * result.commitment * (step >= settings.continuous),
        }

    model.to(memory_format=torch.channels_last)
    fit(model, loss_of, int(run.epochs * per_epoch), run, identity, f"tokenizer {settings.family}")
    return model


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
    zoo = load_settings()
    settings = pick(zoo.tokenizers, "tokenizer", name)
    folder = HERE / "data" / settings.dataset
    extractor = SmallClassifier.load(HERE / settings.extractor / "extractor.safetensors")
    model = train(settings, load_images(folder / "train"), extractor, settings)
    target = HERE / name / "tokenizer.safetensors"
    os.makedirs(target.parent, exist_ok=True)
    about = report(model, load_images(folder / "test"))
    save_tensors(target, model.state_dict(), {"data": settings.dataset, **{k: str(v) for k, v in about.items()}})
    return f"wrote zoo/{name}/tokenizer.safetensors: {about}"


if __name__ == "__main__":
    run_zoo(main, __doc__)
