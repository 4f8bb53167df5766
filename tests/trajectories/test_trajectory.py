"""The decoding loop with the map in it, for both families."""

import pytest
import torch
from scipy import stats

from dd.errors import DDError
from dd.flow.map import Codes
from dd.models.base import Filters
from dd.trajectories.noise import noise
from dd.trajectories.trajectory import Mapped, balanced_classes, decode, multinomial, sample, trajectory
from tests.helpers.paths import ROOT
from tests.helpers.toy_project import tiny_teacher

FILTERS = {"llamagen": Filters(guidance=1.5, top_k=20), "var": Filters(guidance=1.5, top_k=20, top_p=0.95)}


@pytest.fixture(params=["llamagen", "var"])
def family(request):
    return request.param


def pairs(teacher, count, filters, seed=0):
    e = noise(seed, torch.arange(count), teacher.groups.length, teacher.codebook.shape[1])
    return e, trajectory(teacher, balanced_classes(torch.arange(count), 3), e, filters)


def test_noise_decides_everything(family):
    teacher = tiny_teacher(family)
    e, one = pairs(teacher, 30, FILTERS[family])
    again = trajectory(teacher, balanced_classes(torch.arange(30), 3), e, FILTERS[family])
    assert torch.equal(one.tokens, again.tokens)
    assert one.tokens.shape == one.evaluations.shape == (30, teacher.groups.length)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    shuffled = trajectory(teacher, (order % 3), e[order], FILTERS[family]).tokens
    assert (shuffled == one.tokens[order]).float().mean() > 0.99
    other = pairs(teacher, 30, FILTERS[family], seed=1)[1].tokens
    assert (other == one.tokens).float().mean() < 0.9


def test_mapped_tokens_are_as_likely_as_drawn_ones(family):
    """Mean -log p and the share of the likeliest token, within sampling error of what p itself says."""
    teacher, filters, count = tiny_teacher(family), FILTERS[family], 1500
    classes = balanced_classes(torch.arange(count), 3)
    tokens = pairs(teacher, count, filters)[1].tokens
    log_p = teacher.score(tokens, classes, filters)
    p = log_p.exp()
    surprise = -log_p.gather(2, tokens[..., None])[..., 0]
    assert torch.isfinite(surprise).all()  # nothing that the filters took out
    entropy = -torch.where(p > 0, p * log_p, 0).sum(-1)
    difference = (surprise - entropy).double()  # a martingale: its terms are uncorrelated
    assert abs(difference.mean()) < 4 * difference.std() / difference.numel() ** 0.5
    mode = ((tokens == log_p.argmax(-1)).double() - p.amax(-1)).double()
    assert abs(mode.mean()) < 4 * mode.std() / mode.numel() ** 0.5


def test_mapped_and_drawn_tokens_have_the_same_marginals(family):
    teacher, filters, count = tiny_teacher(family), FILTERS[family], 1500
    classes = torch.zeros(count, dtype=torch.long)
    e = noise(3, torch.arange(count), teacher.groups.length, teacher.codebook.shape[1])
    mapped = trajectory(teacher, classes, e, filters).tokens
    drawn = sample(teacher, classes, filters, torch.Generator().manual_seed(0))
    size = len(teacher.codebook)
    for position in (0, teacher.groups.length - 1):
        table = torch.stack([torch.bincount(t[:, position], minlength=size) for t in (mapped, drawn)])
        assert stats.chi2_contingency(table[:, table.sum(0) > 10].numpy()).pvalue > 1e-4


def test_balanced_classes():
    assert torch.bincount(balanced_classes(torch.arange(7, 37), 10)).tolist() == [3] * 10


def test_wrong_noise_is_refused():
    teacher = tiny_teacher("llamagen")
    with pytest.raises(DDError, match=r"noise must be \(B, 9, 4\) for this teacher, got \(2, 8, 4\)"):
        trajectory(teacher, torch.zeros(2, dtype=torch.long), torch.zeros(2, 8, 4), Filters())


def test_decoding_behind_a_prefix_and_up_to_a_group(family):
    teacher, filters, labels = tiny_teacher(family), FILTERS[family], torch.arange(3)
    codes, groups = Codes.prepare(teacher.codebook), teacher.groups
    e = noise(0, torch.arange(3), groups.length, teacher.codebook.shape[1])
    whole = trajectory(teacher, labels, e, filters, codes=codes).tokens
    for first, stop in ((0, 2), (1, 2), (1, len(groups)), (2, 2)):
        begun = whole[:, : groups.starts[first]]
        drawn = decode(teacher, labels, filters, Mapped(e, codes), begun, stop)
        assert torch.equal(drawn, whole[:, : groups.starts[stop]])


def test_random_draws_are_those_of_multinomial():
    log_probs = torch.randn(5, 7, 50, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    log_probs[..., ::3] = -torch.inf
    for seed in range(20):
        first, second = (torch.Generator().manual_seed(seed) for _ in range(2))
        drawn = multinomial(first)(log_probs, slice(0, 7))
        assert torch.equal(drawn, torch.multinomial(log_probs.exp().flatten(0, 1), 1, generator=second).view(5, 7))


def test_one_loop_and_one_multinomial_draw():
    """Whatever draws tokens group by group calls `decode`; its draws are `multinomial` and `Mapped`."""
    files = {p.relative_to(ROOT).as_posix(): p.read_text(encoding="utf-8") for p in (ROOT / "dd").rglob("*.py")}
    found = {text: sorted(name for name in files if text in files[name]) for text in (".advance(", "exponential_(")}
    # models/base.py has an example in a docstring; counting walks through a teacher without drawing; graphs and
    # precision pass on what `decode` calls
    callers = ["dd/bench/precision.py", "dd/models/base.py", "dd/presets/counting.py", "dd/trajectories/graphs.py"]
    assert found[".advance("] == [*callers, "dd/trajectories/trajectory.py"]
    assert found["exponential_("] == ["dd/trajectories/trajectory.py"]
