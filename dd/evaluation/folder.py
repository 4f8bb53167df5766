"""clean-fid's own folder path, with any extractor: what our streamed path is compared with."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dd.metrics.distances import frechet
from dd.metrics.features import Extractor
from dd.metrics.moments import Gaussian
from dd.metrics.references import Reference


def clean_fid_of_folder(folder: Path, extractor: Extractor, reference: Reference, batch: int = 250) -> float:
    """Frechet distance of a folder of images by clean-fid's reader, data loader and feature loop, without resizing.

    The features go to our reference explicitly: clean-fid compares a custom extractor that it is given without a
    second folder with statistics of Inception.
    """
    from cleanfid.fid import get_folder_features

    def features(images: Tensor) -> Tensor:
        return extractor(images.round().clamp(0, 255).to(torch.uint8)).features

    with contextlib.redirect_stdout(io.StringIO()):
        found = get_folder_features(
            str(folder),
            features,
            num_workers=0,
            batch_size=batch,
            device=torch.device("cpu"),
            custom_fn_resize=lambda image: image.astype(np.float32),
            verbose=False,
        )
    return frechet(Gaussian(len(found), found.mean(0), np.cov(found, rowvar=False)), reference.gaussian)
