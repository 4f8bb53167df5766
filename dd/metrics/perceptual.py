"""LPIPS with VGG16 (Zhang et al., CVPR 2018), from the package `lpips`: a distance of two images as people see them.

Its linear layers come with the package, VGG16's ImageNet weights with torchvision. Nothing is fetched here: a compute
node often has no network, and a fetch in the middle of a run would be the first to notice.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from dd.metrics.features import MissingWeights

VGG_NAME = "vgg16-397923af.pth"  # the first eight hex digits of its SHA-256 stand in its name
VGG_SOURCE = "https://download.pytorch.org/models/" + VGG_NAME


def vgg_path() -> Path:
    """Where torchvision looks for the weights first, and where the user may put them."""
    return Path(torch.hub.get_dir()) / "checkpoints" / VGG_NAME


def open_lpips(device: torch.device | str = "cpu", random: bool = False) -> Any:
    """The network, frozen: images (B, 3, H, W) in [-1, 1], twice, to distances (B, 1, 1, 1).

    random: where VGG16's weights are not there, random ones (a rehearsal). Raises MissingWeights otherwise.
    """
    absent = not vgg_path().is_file()
    if absent and not random:
        raise MissingWeights(
            f"VGG16's weights, which LPIPS needs, are not on this machine: run 'dd-cli zoo fetch lpips-vgg', or place "
            f"{VGG_SOURCE} at {vgg_path()}"
        )
    import lpips

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = lpips.LPIPS(net="vgg", pnet_rand=absent, verbose=False)
    return network.to(device).eval().requires_grad_(False)
