"""Heads of the students."""

import torch
import torch.nn.functional as F

from dd.flow.map import map_noise
from dd.models.heads import FlowLogits


def test_flow_logits_come_close_to_the_map():
    """From the probabilities themselves a few steps give most of the exact map's tokens; more steps give more."""
    generator = torch.Generator().manual_seed(0)
    codebook = F.normalize(torch.randn(64, 8, generator=generator), dim=-1)
    log_probs = (3 * torch.randn(3000, 64, generator=generator)).log_softmax(-1)
    noise = torch.randn(3000, 8, generator=generator)
    exact = map_noise(noise, log_probs, codebook).tokens
    found = []
    for steps in (2, 4, 8):
        term = FlowLogits(16, 8, 64, steps)
        term.init_weights(codebook)
        logits = term(noise[None], torch.zeros(1, 3000, 16), log_probs[None])[0]
        found.append((logits.argmax(-1) == exact).float().mean().item())
    best = max(((log_probs + gain * noise @ codebook.t()).argmax(-1) == exact).float().mean() for gain in range(1, 9))
    assert found[0] < found[1] < found[2]
    assert found[1] > best
    assert found[2] > 0.85
