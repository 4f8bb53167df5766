"""Samplers of both families: what each evaluation sees, what is kept, and which settings are refused."""

import pytest
import torch
from torch import nn

from dd.errors import DDError
from dd.models.base import Filters, Groups, StudentOutput
from dd.models.codebook import nearest_code
from dd.sampling.samplers import (
    check_steps,
    final_codes,
    known,
    one_shot,
    perturb,
    sample,
    sample_with_teacher,
)
from dd.trajectories.trajectory import decode, multinomial, trajectory
from tests.helpers.tiny import CLASSES, C, V, tiny_pairs, tiny_student, tiny_teacher
from tests.parity.core import final_predict

FAMILIES = ("llamagen", "var")
B = 3
LABELS = torch.arange(B)


class Fixed(nn.Module):
    """A student whose logits and codes are given; it notes what it was asked."""

    causal = True

    def __init__(self, groups: Groups, logits: torch.Tensor, codes: torch.Tensor | None = None) -> None:
        super().__init__()
        self.groups, self.logits = groups, logits
        self.codes = torch.zeros(*logits.shape[:2], C) if codes is None else codes
        self.calls: list[tuple[torch.Tensor, torch.Tensor]] = []

    def forward(self, x: torch.Tensor, finished: torch.Tensor, condition: torch.Tensor) -> StudentOutput:
        self.calls.append((x.clone(), finished.clone()))
        logits, codes = (part[:, : x.shape[1]].expand(len(x), -1, -1) for part in (self.logits, self.codes))
        return StudentOutput(logits, codes)


def sure_of(tokens: torch.Tensor) -> torch.Tensor:
    """Logits that leave no doubt."""
    return nn.functional.one_hot(tokens, V).float() * 100


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture
def teacher(family):
    return tiny_teacher(family)


def test_one_step_is_one_evaluation(family, teacher):
    student, pairs = tiny_student(teacher, family).eval(), tiny_pairs(teacher, B)
    codes = sample(student, teacher.codebook, pairs.noise, pairs.condition)
    with torch.no_grad():
        logits = student(pairs.noise, torch.zeros(B, dtype=torch.int64), pairs.condition).logits
    assert torch.equal(codes, teacher.codebook[logits.argmax(-1)])
    assert codes.grad_fn is None


def test_steps_keep_what_is_known_and_put_the_noise_back(teacher):
    groups, pairs = teacher.groups, tiny_pairs(teacher, B)
    student = Fixed(groups, torch.randn(B, groups.length, V, generator=torch.Generator().manual_seed(0)))
    first = teacher.codebook[student.logits.argmax(-1)]
    answers = iter([student.logits, student.logits.roll(1, -1)])
    student.register_forward_pre_hook(lambda module, _: setattr(module, "logits", next(answers)))
    codes = sample(student, teacher.codebook, pairs.noise, pairs.condition, (0, 2))
    start = groups.starts[2]
    assert [finished.tolist() for _, finished in student.calls] == [[0] * B, [2] * B]
    assert torch.equal(student.calls[0][0], pairs.noise[:, :start])
    assert torch.equal(student.calls[1][0], torch.cat([first[:, :start], pairs.noise[:, start:]], 1))
    assert torch.equal(codes[:, :start], first[:, :start])
    assert not torch.equal(codes[:, start:], first[:, start:])


@pytest.mark.parametrize("split", [None, 1])
def test_an_evaluation_stops_where_the_next_one_keeps_nothing(family, teacher, split):
    """The codes are those of evaluations that predict everything and throw the rest away."""
    student, pairs, groups = tiny_student(teacher, family).eval(), tiny_pairs(teacher, B), teacher.groups
    seen = []
    student.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1]))
    x = pairs.noise
    for step in (0, 1, 2):
        finished = torch.full((B,), step)
        x = perturb(x, pairs.noise, finished, groups)
        with torch.no_grad():
            new = final_codes(student(x, finished, pairs.condition), groups, teacher.codebook, split)
        x = perturb(x, new, finished, groups)
    seen.clear()
    drawn = sample(student, teacher.codebook, pairs.noise, pairs.condition, (0, 1, 2), split)
    torch.testing.assert_close(drawn, x)
    assert seen == [groups.starts[1], groups.starts[2], groups.length]
    some = sample(student, teacher.codebook, pairs.noise, pairs.condition, (0, 1), split, until=2)
    torch.testing.assert_close(
        some, sample(student, teacher.codebook, pairs.noise, pairs.condition, (0, 1), split)[:, : groups.starts[2]]
    )


def test_a_student_that_is_not_causal_always_sees_everything(teacher):
    groups, pairs = teacher.groups, tiny_pairs(teacher, B)
    student = Fixed(groups, sure_of(pairs.tokens))
    student.causal = False
    codes = sample(student, teacher.codebook, pairs.noise, pairs.condition, (0, 1, 2), until=2)
    assert [x.shape[1] for x, _ in student.calls] == [groups.length] * 3
    assert torch.equal(codes, teacher.codebook[pairs.tokens][:, : groups.starts[2]])


def test_split_between_the_heads(teacher):
    groups = teacher.groups
    codes = torch.randn(1, groups.length, C, generator=torch.Generator().manual_seed(0))
    student = Fixed(groups, sure_of(torch.full((1, groups.length), 5)), codes)
    noise = torch.zeros(B, groups.length, C)
    start = groups.starts[1]
    drawn = sample(student, teacher.codebook, noise, LABELS, (0,), split=1)
    assert torch.equal(drawn[:, :start], teacher.codebook[5].expand(B, start, C))
    assert torch.equal(drawn[:, start:], codes[:, start:].expand(B, -1, -1))
    assert torch.equal(sample(student, teacher.codebook, noise, LABELS, split=0), codes.expand(B, -1, -1))
    quantised = sample(student, teacher.codebook, noise, LABELS)
    for split in (len(groups), None):
        output = StudentOutput(student.logits, codes)
        assert torch.equal(final_codes(output, groups, teacher.codebook, split), quantised[:1])


def test_known_positions_of_a_prediction(teacher):
    groups, pairs = teacher.groups, tiny_pairs(teacher, B)
    output = StudentOutput(torch.zeros(B, groups.length, V), torch.zeros(B, groups.length, C))
    finished = torch.arange(B)  # another number of groups in every row
    x = perturb(teacher.codebook[pairs.tokens], pairs.noise, finished, groups)
    mask = known(finished, groups)
    assert mask.sum(1).tolist() == [groups.starts[n] for n in range(B)]
    final = final_predict(output, x, finished, groups, teacher.codebook)
    assert torch.equal(final.logits.argmax(-1)[mask], pairs.tokens[mask])
    assert (final.logits[mask].exp().sum(-1) == 1).all()
    assert torch.equal(final.codes, torch.where(mask[..., None], x, output.codes))
    assert final_predict(output, x, torch.zeros_like(finished), groups, teacher.codebook) is output


@pytest.mark.parametrize("start", [0, 1])
def test_teacher_draws_its_groups_from_the_same_noise(teacher, start):
    """The teacher's part continues the student's prefix along the teacher's own trajectory."""
    groups, pairs = teacher.groups, tiny_pairs(teacher, B)
    truth = teacher.codebook[pairs.tokens]
    stop = groups.starts[2]
    # A student that is right before `start` and wrong behind it: the teacher mends groups [start, 2).
    guess = pairs.tokens.clone()
    guess[:, groups.starts[start] :] = (guess[:, groups.starts[start] :] + 1) % V
    student = Fixed(groups, sure_of(guess))
    codes = sample_with_teacher(student, teacher, pairs.noise, pairs.condition, (0, 2), start, Filters())
    assert torch.equal(codes[:, :stop], truth[:, :stop])
    assert torch.equal(codes[:, stop:], teacher.codebook[guess][:, stop:])
    assert [x.shape[1] for x, _ in student.calls] == [groups.starts[start]] * bool(start) + [groups.length]
    assert torch.equal(student.calls[-1][0], torch.cat([truth[:, :stop], pairs.noise[:, stop:]], 1))


def test_a_perfect_student_draws_as_the_teacher(teacher):
    pairs = tiny_pairs(teacher, B)
    assert torch.equal(trajectory(teacher, pairs.condition, pairs.noise, Filters()).tokens, pairs.tokens)
    student = Fixed(teacher.groups, sure_of(pairs.tokens))
    for steps in [(0,), (0, 1), (0, 1, 2)]:
        codes = sample(student, teacher.codebook, pairs.noise, pairs.condition, steps)
        assert torch.equal(nearest_code(codes, teacher.codebook), pairs.tokens)


def test_set_prediction_draws_tokens_independently(teacher):
    rows, groups = 600, teacher.groups
    logits = torch.full((1, groups.length, V), float("-inf"))
    logits[..., :2] = torch.tensor([0.3, 0.7]).log()
    predictor = Fixed(groups, logits)
    labels = torch.arange(rows) % CLASSES
    drawn = one_shot(predictor, teacher, labels, torch.Generator().manual_seed(0))
    tokens = nearest_code(drawn, teacher.codebook).float()
    assert predictor.calls[0][0].abs().sum() == 0
    assert tokens.mean(0).sub(0.7).abs().max() < 0.08
    assert torch.corrcoef(tokens.T).fill_diagonal_(0).abs().max() < 0.2
    again = one_shot(predictor, teacher, labels, torch.Generator().manual_seed(0))
    assert torch.equal(drawn, again)


def test_skip_n_starts_with_the_teacher(teacher):
    groups = teacher.groups
    predictor = Fixed(groups, sure_of(torch.full((1, groups.length), 7)))
    generator, start = torch.Generator().manual_seed(0), groups.starts[2]
    prefix = decode(teacher, LABELS, Filters(top_k=1), multinomial(generator), stop=2)
    assert prefix.shape == (B, start)
    drawn = one_shot(predictor, teacher, LABELS, generator, prefix)
    tokens = nearest_code(drawn, teacher.codebook)
    assert torch.equal(teacher.score(tokens, LABELS, Filters()).argmax(-1)[:, :start], tokens[:, :start])
    assert (tokens[:, start:] == 7).all()
    seen, finished = predictor.calls[0]
    assert finished.tolist() == [2] * B
    assert torch.equal(seen[:, :start], drawn[:, :start])
    assert seen[:, start:].abs().sum() == 0


@pytest.mark.parametrize("steps", [(), (1,), (0, 0), (0, 2, 1), (0, 5)])
def test_steps_are_checked(steps):
    shown = ",".join(map(str, steps)) or "none"
    with pytest.raises(DDError) as caught:
        check_steps(steps, 5)
    assert str(caught.value) == (
        f"steps must start at 0, rise, and stay below the teacher's 5 groups (e.g. 0 or 0,2), got {shown}"
    )


def test_other_settings_are_checked(teacher):
    groups, noise = teacher.groups, torch.zeros(B, teacher.groups.length, C)
    student = Fixed(groups, sure_of(torch.zeros(1, groups.length, dtype=torch.int64)))
    with pytest.raises(DDError, match=r"teacher_start must lie in 0\.\.1 \(before the last step\), got 2"):
        sample_with_teacher(student, teacher, noise, LABELS, (0, 2), 2, Filters())
    with pytest.raises(DDError, match=r"steps must hold at least 2 entries where the teacher takes part .* got 0"):
        sample_with_teacher(student, teacher, noise, LABELS, (0,), 0, Filters())
    with pytest.raises(DDError, match=rf"prefix: expected whole groups, .* tokens, got {groups.length}; cut it there"):
        one_shot(student, teacher, LABELS, torch.Generator(), torch.zeros(B, groups.length, dtype=torch.int64))
    with pytest.raises(DDError, match="steps must start at 0"):
        sample(student, teacher.codebook, noise, LABELS, (1,))
    assert not student.calls
