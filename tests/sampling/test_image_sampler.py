"""Drawing for an evaluation: what samplers share, what timing must not share, precision."""

import pytest
import torch

from dd import config
from dd.errors import DDError
from dd.flow.map import Codes
from dd.models.base import Filters
from dd.sampling import image_sampler as sampler_module
from dd.sampling import samplers as sampling
from dd.sampling.image_sampler import ImageSampler, class_conditions, sampler_label
from tests.helpers.tiny import CLASSES, tiny_student, tiny_teacher

TEACHER = config.TeacherSampler(name="teacher")
ONE, TWO = (config.StudentSampler(name="dd", steps=steps) for steps in ((0,), (0, 2)))
INVOLVED = config.TeacherInvolvedSampler(name="dd+teacher", steps=(0, 2), teacher_start=1)
SKIP = config.SkipSampler(name="skip", n=1)
INDICES = torch.arange(5)


@pytest.fixture(params=["llamagen", "var"])
def make(request):
    teacher = tiny_teacher(request.param)
    student = tiny_student(teacher, request.param).eval()
    conditions = class_conditions(CLASSES, torch.device("cpu"))

    def made(precision="fp32") -> ImageSampler:
        return ImageSampler(teacher, conditions, Filters(guidance=2.0), 0, student, student, precision=precision)

    return made


def count_calls(image_sampler: ImageSampler, monkeypatch) -> list[str]:
    calls: list[str] = []
    for name, module in (("student", image_sampler.student), ("teacher", image_sampler.teacher)):
        method = "forward" if name == "student" else "start"
        inner = getattr(module, method)
        monkeypatch.setattr(module, method, lambda *a, name=name, inner=inner: (calls.append(name), inner(*a))[1])
    return calls


def test_a_shared_beginning_changes_nothing(make):
    scaled = [sampler.model_copy(update={"noise_scale": 1.5}) for sampler in (ONE, TWO, INVOLVED)]
    shared = make()
    for sampler in (ONE, TWO, INVOLVED, *scaled):
        assert torch.equal(shared.codes(sampler, INDICES), make().codes(sampler, INDICES))


def test_one_evaluation_less_where_the_first_step_is_known(make, monkeypatch):
    image_sampler = make()
    calls = count_calls(image_sampler, monkeypatch)
    image_sampler.codes(ONE, INDICES)
    image_sampler.codes(TWO, INDICES)
    assert calls == ["student"] * 2
    image_sampler.codes(TWO, INDICES + 5)  # other images
    assert calls == ["student"] * 4


def test_scaled_noise(make):
    """A scale is that of the noise and of nothing else, and rows of different scales do not share a beginning."""
    image_sampler, wide = make(), TWO.model_copy(update={"noise_scale": 1.5})
    codes = [image_sampler.codes(sampler, INDICES) for sampler in (TWO, wide)]
    condition, e = image_sampler.conditions.condition(INDICES), image_sampler._inputs(INDICES).noise
    for scale, found in zip((1.0, 1.5), codes, strict=True):
        assert torch.equal(
            found, sampling.sample(image_sampler.student, image_sampler.codebook, scale * e, condition, (0, 2))
        )
    assert not torch.equal(*codes)
    assert [sampler_label(sampler) for sampler in (TWO, wide)] == ["dd 0,2", "dd 0,2 noise 1.5"]


def test_scaled_noise_leaves_the_map_alone(make):
    """Where the teacher draws all that is kept, only what the student adds to it changes."""
    image_sampler, kept = make(), INVOLVED.model_copy(update={"teacher_start": 0})
    plain, wide = (image_sampler.codes(kept.model_copy(update={"noise_scale": s}), INDICES) for s in (1.0, 1.5))
    begun = image_sampler.teacher.groups.starts[2]
    assert torch.equal(plain[:, :begun], wide[:, :begun])
    assert not torch.equal(plain, wide)
    assert sampler_label(kept.model_copy(update={"noise_scale": 1.5})) == "dd+teacher 0,2 from 0 noise 1.5"


def test_the_teacher_has_knobs_of_its_own(make):
    """Noise, guidance and temperature of its row change nothing but that row, and their standard values nothing."""
    image_sampler = make()
    plain = image_sampler.codes(TEACHER, INDICES)
    standard = TEACHER.model_copy(update={"guidance": 2.0, "temperature": 1.0})
    assert torch.equal(plain, image_sampler.codes(standard, INDICES))
    knobs = ("guidance", "noise_scale", *(("temperature",) if image_sampler.teacher.has_temperature else ()))
    for knob in knobs:
        changed = TEACHER.model_copy(update={knob: 4.0})
        assert not torch.equal(plain, image_sampler.codes(changed, INDICES)), knob
        assert torch.equal(make().codes(changed, INDICES), image_sampler.codes(changed, INDICES))
    assert torch.equal(plain, image_sampler.codes(TEACHER, INDICES))
    if not image_sampler.teacher.has_temperature:
        with pytest.raises(DDError, match="temperature: VARTeacher has none; drop it from the sampler 'teacher'"):
            image_sampler.check(TEACHER.model_copy(update={"temperature": 0.9}))
    assert sampler_label(TEACHER) == "teacher"
    labelled = TEACHER.model_copy(update={"guidance": 1.2, "noise_scale": 1.1})
    assert sampler_label(labelled) == "teacher guidance 1.2 noise 1.1"


def test_timing_shares_nothing(make, monkeypatch):
    image_sampler = make()
    for sampler in (TEACHER, ONE):
        image_sampler.codes(sampler, INDICES)
    calls = count_calls(image_sampler, monkeypatch)
    image_sampler.timed(TWO, INDICES)()
    assert calls == ["student"] * 2
    image_sampler.timed(SKIP, INDICES)()
    assert calls == ["student"] * 2 + ["teacher", "student"]
    image_sampler.timed(TEACHER, INDICES)()
    assert calls[4:] == ["teacher"]


@pytest.mark.parametrize("room", [ImageSampler.ROOM, 10])
def test_skip_keeps_the_images_of_the_teachers_row(make, monkeypatch, room):
    """Also where there was no room to keep them, and where the teacher has no row: pairs are pairs."""
    monkeypatch.setattr(ImageSampler, "ROOM", room)
    image_sampler = make()
    whole = image_sampler.codes(TEACHER, INDICES)
    kept = image_sampler.teacher.groups.starts[-2]
    for one in (image_sampler, make()):
        assert torch.equal(one.codes(SKIP, INDICES)[:, :kept], whole[:, :kept])
    assert torch.equal(image_sampler.codes(SKIP, INDICES), make().codes(SKIP, INDICES))


def test_tokens_are_kept_in_two_bytes(make):
    image_sampler = make()
    for sampler in (TEACHER, ONE):
        image_sampler.codes(sampler, INDICES)
    tokens = len(INDICES) * image_sampler.teacher.groups.length
    assert [kept.dtype for kept in image_sampler._kept.values()] == [torch.uint16] * 2
    assert ImageSampler.ROOM - image_sampler._room == 2 * 2 * tokens
    assert ImageSampler.ROOM > 50_000 * 680 * 2  # the largest protocol, VAR's tokens


def test_noise_is_made_once_and_before_the_clock_runs(make, monkeypatch):
    image_sampler, made = make(), []
    inner = sampler_module.noise
    monkeypatch.setattr(sampler_module, "noise", lambda *a: (made.append(1), inner(*a))[1])
    for sampler in (TEACHER, TWO, INVOLVED, SKIP):
        made.clear()
        run = image_sampler.timed(sampler, INDICES)
        assert len(made) == 1
        run()
        image_sampler.codes(sampler, INDICES)
        assert len(made) == 2, sampler


def test_the_codebook_is_prepared_once_a_sampler(make, monkeypatch):
    image_sampler, prepared = make(), []
    inner = Codes.prepare
    monkeypatch.setattr(Codes, "prepare", lambda codes: (prepared.append(1), inner(codes))[1])
    for indices in (INDICES, INDICES + 5):
        for sampler in (TEACHER, INVOLVED, SKIP):
            image_sampler.codes(sampler, indices)
    assert len(prepared) == 1


def test_what_has_no_room_is_made_again(make, monkeypatch):
    monkeypatch.setattr(ImageSampler, "ROOM", 10)
    image_sampler = make()
    calls = count_calls(image_sampler, monkeypatch)
    first = image_sampler.codes(TEACHER, INDICES)
    assert torch.equal(image_sampler.codes(TEACHER, INDICES), first)
    assert calls == ["teacher"] * 2


def test_bf16_is_for_the_transformers_alone(make):
    full, half = make(), make("bf16")
    a, b = full.codes(TEACHER, INDICES), half.codes(TEACHER, INDICES)
    assert a.dtype == b.dtype == torch.float32
    codebook = full.teacher.codebook
    assert (
        torch.cdist(b.flatten(0, 1), codebook).amin(-1).max() < 1e-3
    )  # still exact codes, so the same float32 decoder
    assert (a == b).all(-1).float().mean() > 0.5


@pytest.mark.parametrize("family", ["llamagen", "var"])
def test_passes_are_the_runs_of_a_transformer(family, monkeypatch):
    """Counted where they happen: the first block of each network, once a pass."""
    teacher = tiny_teacher(family)
    student = tiny_student(teacher, family, teacher_input=True, refinements=2).eval()
    plain = tiny_student(teacher, family).eval()
    image_sampler = ImageSampler(teacher, class_conditions(CLASSES, torch.device("cpu")), Filters(), 0, student, plain)
    calls: list[int] = []
    for network in (student, plain, teacher):
        blocks = "layers" if family == "llamagen" else "blocks"
        first = next(m for name, m in network.named_modules() if name.split(".")[-1] == blocks)[0]
        monkeypatch.setattr(first, "forward", lambda *a, inner=first.forward, **k: (calls.append(1), inner(*a, **k))[1])
    for sampler in (TEACHER, ONE, TWO, INVOLVED, SKIP, config.OneStepSampler(name="onestep*")):
        calls.clear()
        image_sampler.timed(sampler, INDICES)()
        assert len(calls) == image_sampler.passes(sampler), sampler


def test_a_refined_student_in_a_row_of_one_pass_is_refused():
    teacher = tiny_teacher("llamagen")
    refined = tiny_student(teacher, "llamagen", teacher_input=True, refinements=2).eval()
    conditions = class_conditions(CLASSES, torch.device("cpu"))
    image_sampler = ImageSampler(teacher, conditions, Filters(), 0, refined)
    for sampler in (ONE, TWO, INVOLVED):
        image_sampler.check(sampler.model_copy(update={"passes": 3}))
        with pytest.raises(DDError, match=r"expected a student of passes: 1, it takes 3: set distill\.student\.refine"):
            image_sampler.check(sampler.model_copy(update={"passes": 1}))
