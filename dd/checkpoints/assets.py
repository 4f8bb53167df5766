"""Files that are on no model hub: networks and references of metrics. Where each must lie, and how to get it.

`dd-cli zoo fetch NAME` gets one; a file that the user puts at its place is as good. Knows no torch before a download.
"""

from __future__ import annotations

import os
import shutil
import urllib.error
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dd.config import project_root
from dd.errors import DDError, TemporaryError
from dd.system.files import atomic_path, sha256_file

ADM = "https://openaipublic.blob.core.windows.net/diffusion/jul-2021/ref_batches/imagenet/256/"


@dataclass(frozen=True)
class Asset:
    """A file by its address.

    place: its name in torch's cache of checkpoints (where libraries look), or `references/...` of the project.
    sha256: the first digits that its publisher put into its name; empty where none are known. megabytes: about. also:
    another name under which a library keeps the same bytes.
    """

    name: str
    kind: Literal["extractor", "reference"]
    url: str
    place: str
    megabytes: int
    licence: str
    about: str
    sha256: str = ""
    also: str = ""

    def path(self) -> Path:
        """Where it lies, or must lie."""
        if "/" in self.place:
            return project_root() / self.place
        first, second = torch_checkpoints() / self.place, torch_checkpoints() / (self.also or self.place)
        return second if second.is_file() and not first.is_file() else first

    def here(self) -> bool:
        """Whether it lies there (its content is not read)."""
        return self.path().is_file()

    def how(self) -> str:
        """How to get it, in a few words."""
        return f"dd-cli zoo fetch {self.name}, or place {self.url} at {self.path()}"


ASSETS = {
    asset.name: asset
    for asset in (
        Asset(
            "inception",
            "extractor",
            "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
            "weights-inception-2015-12-05-6726825d.pth",
            96,
            "Apache 2.0",
            "the Inception network of FID, for the protocols adm and dd",
            "6726825d",
            "pt_inception-2015-12-05-6726825d.pth",
        ),
        Asset(
            "lpips-vgg",
            "extractor",
            "https://download.pytorch.org/models/vgg16-397923af.pth",
            "vgg16-397923af.pth",
            553,
            "BSD 3-Clause",
            "torchvision's VGG16, which LPIPS needs",
            "397923af",
        ),
        Asset(
            "adm-reference",
            "reference",
            f"{ADM}VIRTUAL_imagenet256_labeled.npz",
            "references/VIRTUAL_imagenet256_labeled.npz",
            2000,
            "MIT",
            "ADM's statistics of ImageNet-256 and 10,000 of its images, for the protocol adm",
        ),
    )
}
# Entries of the hub that must also lie somewhere in the project.
PLACED = {"dd-fid-statistic": "references/statistic.pth"}


def torch_checkpoints() -> Path:
    """torch.hub's folder of checkpoints: $TORCH_HOME/hub/checkpoints, by default in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "torch"
    return Path(os.environ.get("TORCH_HOME") or cache).expanduser() / "hub" / "checkpoints"


def fetch_asset(asset: Asset) -> Path:
    """Path of the verified file, downloaded if it is not at its place. Raises DDError."""
    path = asset.path()
    if path.is_file():
        return verify_asset(asset)
    from torch.hub import download_url_to_file

    with atomic_path(path) as scratch:
        try:
            download_url_to_file(asset.url, str(scratch), asset.sha256 or None, progress=False)
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            reason = getattr(error, "reason", error)
            raise TemporaryError(f"cannot fetch {asset.url} ({reason}): place the file at {path}") from None
        except RuntimeError as error:  # the digits of its name are not those of its bytes
            raise DDError(f"{asset.url}: {error}: fetch it again, or place the file at {path}") from None
    return path


def verify_asset(asset: Asset) -> Path:
    """Path of the file if its bytes are those of its name. Raises DDError."""
    path = asset.path()
    if not path.is_file():
        raise DDError(f"{asset.name} is not at {path}: run 'dd-cli zoo fetch {asset.name}'")
    if not sha256_file(path).startswith(asset.sha256):
        raise DDError(f"{path}: expected a SHA-256 that begins with {asset.sha256}: remove it and fetch it again")
    return path


def put_in_place(name: str, file: Path) -> Path:
    """A fetched file of the hub, copied to where protocols look for it."""
    target = project_root() / PLACED[name]
    if not target.is_file() or sha256_file(target) != sha256_file(file):
        with atomic_path(target) as scratch:
            shutil.copyfile(file, scratch)
    return target
