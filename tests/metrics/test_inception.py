"""The Inception networks on random weights: loaded safely, the same network in both libraries, sFID's map."""

from pathlib import Path

import pytest
import torch

from dd.errors import DDError
from dd.metrics.extractors import open_extractor
from dd.metrics.inception import (
    _torch_fidelity_network,
    _without_initialisation,
)  # the structure that the weights are made for


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state dict of the FID network with random weights, as the libraries publish theirs."""
    from torch_fidelity import feature_extractor_inceptionv3 as library

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    made: dict[str, torch.Tensor] = {}

    def grab(self: torch.nn.Module, state: object) -> None:
        made.update(self.state_dict())

    patch = pytest.MonkeyPatch()
    patch.setattr(library.FeatureExtractorInceptionV3, "load_state_dict", grab)
    patch.setattr(library.torch, "load", lambda *args, **kwargs: {})
    with _without_initialisation():
        library.FeatureExtractorInceptionV3("random", ["2048"], feature_extractor_weights_path="none")
    patch.undo()
    for name, tensor in made.items():
        if tensor.ndim == 4:  # Xavier's size, so that no layer dies out or explodes
            tensor.uniform_(-1, 1).mul_((6 / tensor[0].numel()) ** 0.5)
        elif tensor.ndim == 2:
            tensor.uniform_(-0.02, 0.02)
        else:
            tensor.fill_(1 if name.endswith(("weight", "var")) else 0)
    torch.save(made, path)
    return path


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


@pytest.mark.slow
def test_both_networks_of_one_file(weights: Path, images: torch.Tensor):
    large = images.repeat_interleave(5, 2).repeat_interleave(5, 3)[:, :, :299, :299]
    tensorflow, pytorch = open_extractor("inception-tf", weights), open_extractor("inception-pytorch", weights)
    a, b = tensorflow(large), pytorch(large)
    assert a.features.shape == b.features.shape == (2, 2048)
    assert a.logits.shape == (2, 1008)
    assert a.spatial.shape == (2, 17 * 17 * 7)
    assert b.logits is None
    # the same network; (x - 128) / 128 and 2 x / 255 - 1 differ by at most 1 / 128
    torch.testing.assert_close(a.features, b.features, rtol=0.05, atol=0.02 * float(a.features.abs().max()))
    assert tensorflow.weights_sha256 == pytorch.weights_sha256
    small_a, small_b = tensorflow(images).features, pytorch(images).features
    assert (small_a - small_b).abs().max() > (a.features - b.features).abs().max()  # the resizes differ


def test_other_files_are_refused(tmp_path: Path):
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.pth")
    for kind in ("inception-tf", "inception-pytorch"):
        with pytest.raises(DDError, match=r"other\.pth holds no Inception weights of FID"):
            open_extractor(kind, tmp_path / "other.pth")
    torch.save({"a": print}, tmp_path / "code.pth")
    with pytest.raises(DDError, match="holds code"):
        _torch_fidelity_network(tmp_path / "code.pth")
    (tmp_path / "net.pt").write_bytes(b"x")
    with pytest.raises(DDError, match=r"clean-fid expects a file named inception-2015-12-05\.pt, got net\.pt"):
        open_extractor("inception-clean", tmp_path / "net.pt")
    (tmp_path / "inception-2015-12-05.pt").write_bytes(b"x")
    with pytest.raises(DDError, match="is no TorchScript Inception"):
        open_extractor("inception-clean", tmp_path / "inception-2015-12-05.pt")


def test_clean_fid_takes_its_torchscript_from_a_path(tmp_path: Path, images: torch.Tensor):
    class Layers(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.adaptive_avg_pool2d(x, 32).flatten(1)[:, :2048]

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = Layers()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layers(x)

    torch.jit.save(torch.jit.script(Net()), tmp_path / "inception-2015-12-05.pt")
    features = open_extractor("inception-clean", tmp_path / "inception-2015-12-05.pt")(images).features
    assert features.shape == (2, 2048)
    assert features.abs().max() <= 1
