"""Teachers of both families at odd sizes: decoding against scoring, guidance, precision."""

import math

import pytest
import torch

from dd.models.base import Filters
from tests.helpers.small.models import FILTERS, B, V, decode, make_case


@pytest.mark.parametrize("groups", [0, 1, 3])
@pytest.mark.parametrize("filters", FILTERS.values(), ids=FILTERS)
@pytest.mark.parametrize("kind", ["llamagen", "t2i", "var"])
def test_score_is_what_decoding_gives(kind, filters, groups):
    teacher, condition = make_case(kind)
    tokens = torch.randint(V, (B, teacher.groups.length))
    stepwise = decode(teacher, condition, tokens, filters, groups)
    scored = teacher.score(tokens, condition, filters)[:, teacher.groups.starts[groups] :]
    torch.testing.assert_close(stepwise, scored, atol=1e-4, rtol=1e-4)
    assert torch.allclose(stepwise.exp().sum(-1), torch.ones(stepwise.shape[:2]), atol=1e-5)


@pytest.mark.parametrize(("first", "guided"), [(0, 2), (1, 3), (3, 5), (30, 25)])
def test_guidance_of_leading_tokens_only(first, guided):
    teacher, labels = make_case("llamagen")
    tokens = torch.randint(V, (B, 25))
    filters = Filters(guidance=3.0, guidance_tokens=first)
    scored = teacher.score(tokens, labels, filters)
    torch.testing.assert_close(decode(teacher, labels, tokens, filters, 0), scored, atol=1e-4, rtol=1e-4)
    everything = teacher.score(tokens, labels, Filters(guidance=3.0))
    nothing = teacher.score(tokens, labels, Filters())
    torch.testing.assert_close(scored[:, :guided], everything[:, :guided])
    torch.testing.assert_close(scored[:, guided:], nothing[:, guided:])


@pytest.mark.parametrize("kind", ["llamagen", "var"])
def test_no_work_on_the_unconditional_half_without_guidance(kind):
    teacher, labels = make_case(kind)
    off = teacher.start(labels, Filters(guidance=1.0 if kind == "llamagen" else 0.0))
    on = teacher.start(labels, Filters(guidance=2.0))
    assert (len(off.pending), len(on.pending)) == (B, 2 * B)
    assert (off.cache.kv.shape[2], on.cache.kv.shape[2]) == (B, 2 * B)
    if kind == "llamagen":
        state = teacher.start(labels, Filters(guidance=2.0, guidance_tokens=0))
        tokens = torch.zeros(B, 1, dtype=torch.int64)
        rows = []
        for _ in range(4):
            rows.append(len(state.pending))
            teacher.advance(state, tokens)
        assert rows == [2 * B, 2 * B, B, B]


@pytest.mark.parametrize("kind", ["llamagen", "t2i", "var"])
def test_bfloat16_decoding_stays_close(kind):
    teacher, condition = make_case(kind)
    for parameter in teacher.transformer.parameters():
        parameter.mul_(0.3)
    tokens = torch.randint(V, (B, teacher.groups.length))
    exact = decode(teacher, condition, tokens, Filters(guidance=1.5), 0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = decode(teacher, condition, tokens, Filters(guidance=1.5), 0)
        state = teacher.start(condition, Filters())
    assert state.cache.kv.dtype == torch.bfloat16
    assert half.dtype == torch.float32
    assert (exact - half).abs().max() < 0.3


@pytest.mark.parametrize("kind", ["llamagen", "var"])
def test_initial_weights_learn(kind):
    teacher, labels = make_case(kind)
    teacher.transformer.requires_grad_(True).init_weights()
    tokens = torch.randint(V, (B, teacher.groups.length))
    optimizer = torch.optim.AdamW(teacher.transformer.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        logits = teacher.logits(tokens, labels)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten())
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[0] == pytest.approx(math.log(V), abs=0.1)
    assert losses[-1] < 0.7 * losses[0]
