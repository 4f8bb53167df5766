"""The Inception networks of FID, from the weights of torch-fidelity, clean-fid and pytorch-fid.

One network, three preprocessings, three different numbers; a protocol fixes which. Nothing is fetched here: weights
come from a given path or from the library's own cache, and where there are none the error says which file to place.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional as F

from dd.checkpoints.safe import load_tensors, sha256_file
from dd.errors import DDError
from dd.metrics.features import Extractor, Features, MissingWeights

log = logging.getLogger(__name__)

WIDTH = 2048
# The first eight hex digits of the SHA-256 stand in the file's name; both libraries publish the same bytes.
PTH_PREFIX = "6726825d"
PTH_NAMES = ("weights-inception-2015-12-05-6726825d.pth", "pt_inception-2015-12-05-6726825d.pth")
PTH_SOURCE = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/" + PTH_NAMES[0]
JIT_NAME = "inception-2015-12-05.pt"
JIT_SOURCE = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/" + JIT_NAME
SPATIAL_CHANNELS = 7  # ADM's sFID: the first seven channels of mixed_6/conv, 17 x 17


def _find(path: Path | None, caches: list[Path], source: str) -> Path:
    """The given path, else the first file that is in a cache."""
    if path is not None:
        if not path.is_file():
            raise MissingWeights(f"no Inception weights at {path}: fetch {source} and place it there")
        return path
    for candidate in caches:
        if candidate.is_file():
            return candidate
    by_name = "run 'dd-cli zoo fetch inception', or " if caches[0].name in PTH_NAMES else ""
    raise MissingWeights(
        f"Inception weights are not on this machine: {by_name}fetch {source} and place it at {caches[0]}"
    )


def _hub_cache() -> list[Path]:
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    return [folder / name for name in PTH_NAMES]


@contextmanager
def _without_initialisation() -> Iterator[None]:
    """Layers keep whatever is in memory: their weights come from a file at once, and drawing them takes long."""
    names = ("trunc_normal_", "kaiming_uniform_", "uniform_", "constant_")
    with ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision's, on how clean-fid calls it
        for name in names:
            stack.enter_context(mock.patch.object(torch.nn.init, name, lambda tensor, *args, **kwargs: tensor))
        yield


def _digest(path: Path, prefix: str) -> str:
    digest = sha256_file(path)
    if not digest.startswith(prefix):
        log.warning("%s has SHA-256 %s..., the published file %s...: numbers will differ", path, digest[:8], prefix)
    return digest


class TensorflowInception(Extractor):
    """torch-fidelity's copy of the TensorFlow graph of ADM's evaluator, with TF 1's resize.

    Features are pool_3, logits the class scores without bias (as the original Inception score takes them), spatial
    the map of sFID.
    """

    name = "inception-tf"
    preprocessing = "TF1 bilinear to 299, (x - 128) / 128"
    feature_width = WIDTH

    def __init__(self, path: Path | None = None, device: str | torch.device = "cpu") -> None:
        path = _find(path, _hub_cache(), PTH_SOURCE)
        self.weights_sha256 = _digest(path, PTH_PREFIX)
        self.device = torch.device(device)
        self.model = _torch_fidelity_network(path).to(self.device)
        self._spatial: Tensor | None = None
        self.model.Mixed_6d.branch1x1.register_forward_hook(self._keep)

    def _keep(self, module: Any, inputs: Any, output: Tensor) -> None:
        self._spatial = output[:, :SPATIAL_CHANNELS]

    def extract(self, images: Tensor) -> Features:
        features, logits = self.model(images.to(self.device))
        assert self._spatial is not None
        # (B, 7, 17, 17) -> (B, 17 * 17 * 7): TensorFlow flattens channels last
        spatial = self._spatial.permute(0, 2, 3, 1).flatten(1)
        return Features(features.float().cpu(), logits.float().cpu(), spatial.float().cpu())


def _torch_fidelity_network(path: Path) -> Any:
    """The network with weights read safely: the library itself would unpickle anything."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    state = load_tensors(path)
    with _without_initialisation(), mock.patch.object(torch, "load", return_value=state):
        try:
            return FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(path)
            )
        except RuntimeError as error:
            raise DDError(f"{path} holds no Inception weights of FID ({str(error).splitlines()[0]})") from error


class PytorchInception(Extractor):
    """pytorch-fid's network (clean-fid's copy of it) with pytorch-fid's resize: the protocol of DD's authors."""

    name = "inception-pytorch"
    preprocessing = "bilinear (align_corners false) of x / 255 to 299, 2 x - 1"
    feature_width = WIDTH

    def __init__(self, path: Path | None = None, device: str | torch.device = "cpu") -> None:
        from cleanfid import inception_pytorch

        path = _find(path, _hub_cache()[::-1], PTH_SOURCE.replace(*PTH_NAMES))
        self.weights_sha256 = _digest(path, PTH_PREFIX)
        self.device = torch.device(device)
        state = load_tensors(path)
        given = mock.patch.object(inception_pytorch, "load_state_dict_from_url", return_value=state)
        with _without_initialisation(), given:
            try:
                self.model = inception_pytorch.InceptionV3([3], resize_input=False).to(self.device).eval()
            except RuntimeError as error:
                raise DDError(f"{path} holds no Inception weights of FID ({str(error).splitlines()[0]})") from error

    def extract(self, images: Tensor) -> Features:
        x = images.to(self.device).float() / 255
        x = F.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False)
        return Features(self.model(x)[0].flatten(1).float().cpu())


class CleanInception(Extractor):
    """clean-fid's own mode: Pillow's antialiased bicubic resize, NVIDIA's TorchScript copy of the network."""

    name = "inception-clean"
    preprocessing = "clean-fid: Pillow bicubic to 299 in float, (x - 128) / 128"
    feature_width = WIDTH

    def __init__(self, path: Path | None = None, device: str | torch.device = "cpu") -> None:
        from cleanfid.inception_torchscript import InceptionV3W
        from cleanfid.resize import build_resizer

        path = _find(path, [Path(tempfile.gettempdir()) / JIT_NAME, _hub_cache()[0].with_name(JIT_NAME)], JIT_SOURCE)
        if path.name != JIT_NAME:
            raise DDError(f"clean-fid expects a file named {JIT_NAME}, got {path.name}: rename it")
        self.weights_sha256 = sha256_file(path)
        self.device = torch.device(device)
        try:
            self.model = InceptionV3W(str(path.parent), download=False).to(self.device).eval()
        except RuntimeError as error:
            raise DDError(f"{path} is no TorchScript Inception ({str(error).strip().splitlines()[0]})") from error
        self.resize = build_resizer("clean")

    def extract(self, images: Tensor) -> Features:
        resized = [torch.from_numpy(self.resize(image)) for image in images.permute(0, 2, 3, 1).numpy()]
        x = torch.stack(resized).permute(0, 3, 1, 2).to(self.device)
        return Features(self.model(x).float().cpu())
