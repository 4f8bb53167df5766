"""Synthetic codebooks and distributions for the tests of the map."""

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torchdiffeq import odeint

from dd.flow.map import posterior, velocity


def random_codebook(size: int, width: int, seed: int = 0) -> Tensor:
    """(size, width) independent normal codes."""
    return torch.randn(size, width, generator=torch.Generator().manual_seed(seed))


def close_codebook(clusters: int, members: int, width: int, distance: float, seed: int = 0) -> Tensor:
    """Unit vectors in clusters whose members are about `distance` apart, as in a trained codebook."""
    generator = torch.Generator().manual_seed(seed)
    centres = normalize(torch.randn(clusters, width, generator=generator), dim=-1).repeat_interleave(members, 0)
    offsets = torch.randn(clusters * members, width, generator=generator) * distance / (2 * width) ** 0.5
    return normalize(centres + offsets, dim=-1)


def peaked(count: int, size: int, sharpness: float, seed: int = 0) -> Tensor:
    """(count, size) log-probabilities with normal logits of this standard deviation."""
    generator = torch.Generator().manual_seed(seed)
    return (sharpness * torch.randn(count, size, generator=generator)).log_softmax(-1)


def paper_ode(e: Tensor, log_probs: Tensor, codes: Tensor, last: float = 0.999) -> Tensor:
    """dopri5 at 1e-7 in float64 on the equation as the paper writes it."""
    e, log_probs, codes = e.double(), log_probs.double(), codes.double()
    times = torch.tensor([0.0, last], dtype=torch.float64)
    x = odeint(lambda t, x: velocity(x, t.expand(len(x)), log_probs, codes), e, times, rtol=1e-7, atol=1e-7)[-1]
    return posterior(x, times[1:].expand(len(x)), log_probs, codes)[0].argmax(-1)
