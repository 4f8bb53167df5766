"""The loop as CUDA graphs, with a stand-in for them: no host reads, and replays equal the eager loop."""

import re

import pytest
import torch

from dd.errors import DDError
from dd.flow.grid import Solver
from dd.flow.map import Codes, map_noise
from dd.models.base import Filters
from dd.trajectories.graphs import GraphedLoop
from dd.trajectories.noise import noise
from dd.trajectories.trajectory import trajectory
from dd.trajectories.worker import loop_of
from tests.helpers.codebooks import peaked, random_codebook
from tests.helpers.toy_project import tiny_teacher
from tests.trajectories.recorded import NoReads, StandIn

FILTERS = {
    "llamagen": Filters(guidance=1.5, top_k=20, guidance_tokens=3),
    "var": Filters(guidance=1.5, top_k=20, top_p=0.95),
}


@pytest.fixture(params=["llamagen", "var"])
def family(request):
    return request.param


def batch(teacher, first, count=6):
    indices = torch.arange(first, first + count)
    return indices % 3, noise(0, indices, teacher.groups.length, teacher.codebook.shape[1])


def test_the_map_reads_nothing_back():
    codes, log_p = Codes.prepare(random_codebook(600, 8)), peaked(40, 600, 2.0)
    e = noise(0, range(40), 1, 8)[:, 0]
    whole = map_noise(e, log_p, codes, fixed=True)  # what is read once for a codebook is read here
    with NoReads():
        again = map_noise(e, log_p, codes, fixed=True)
    assert torch.equal(again.tokens, whole.tokens)
    with pytest.raises(AssertionError, match="reads from the device"), NoReads():
        map_noise(e, log_p, codes, fixed=False)


def test_the_loop_reads_nothing_back(family):
    teacher = tiny_teacher(family)
    codes, filters = Codes.prepare(teacher.codebook), FILTERS[family]
    classes, e = batch(teacher, 0)
    state = teacher.start(classes, filters)  # which looks at the classes once
    codes.width(Solver())
    drawn = []
    with NoReads():
        for group in range(len(teacher.groups)):
            positions = e[:, teacher.groups.slice(group)].flatten(0, 1)
            found = map_noise(positions, teacher.log_probs(state).flatten(0, 1), codes, fixed=True)
            drawn.append(found.tokens.view(len(e), -1))
            teacher.advance(state, drawn[-1])
    eager = trajectory(teacher, classes, e, filters, codes=codes).tokens
    assert (torch.cat(drawn, 1) == eager).float().mean() > 0.98


def test_replays_equal_the_eager_loop(family, monkeypatch):
    teacher, filters, solver = tiny_teacher(family), FILTERS[family], Solver()
    codes, recorder = Codes.prepare(teacher.codebook), StandIn(monkeypatch)
    loop = GraphedLoop(teacher, filters, codes, solver, recorder)
    operations = []
    for first in (0, 6, 12):  # eager, recorded, replayed
        classes, e = batch(teacher, first)
        found, eager = loop(classes, e), trajectory(teacher, classes, e, filters, solver, codes)
        assert torch.equal(found.tokens, eager.tokens)
        assert found.evaluations.min() > 0
        operations.append(recorder.operations)
    assert operations[0] == 0 < operations[1] == operations[2]
    assert recorder.replays == 2 * 2 * len(teacher.groups)  # two batches, each group's step and map


def test_another_size_runs_eagerly_first_and_is_recorded_anew(monkeypatch):
    teacher, recorder = tiny_teacher("llamagen"), StandIn(monkeypatch)
    loop = GraphedLoop(teacher, Filters(), Codes.prepare(teacher.codebook), Solver(), recorder)
    for size in (4, 4, 2, 2, 4):
        classes, e = batch(teacher, 0, size)
        assert torch.equal(loop(classes, e).tokens, trajectory(teacher, classes, e, Filters()).tokens)


def test_a_teacher_without_possible_codes_is_found_behind_the_loop():
    codes, log_p = random_codebook(40, 4), torch.zeros(3, 40)
    log_p[1] = -torch.inf
    found = map_noise(noise(0, range(3), 1, 4)[:, 0], log_p, codes, fixed=True)
    assert found.evaluations[1] == 0
    assert (found.evaluations[[0, 2]] > 0).all()


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("fast", "DD_LOOP: expected graphs or compile or both by a comma, got 'fast'"),
        ("compile, graphs", "DD_LOOP: graphs are CUDA's, got a teacher on the CPU; leave graphs out"),
    ],
)
def test_the_setting_is_checked(monkeypatch, setting, text):
    monkeypatch.setenv("DD_LOOP", setting)
    with pytest.raises(DDError, match=f"^{re.escape(text)}$"):
        loop_of(tiny_teacher("var"), None, None)


def test_compiled_blocks_draw_the_same_tokens(family, monkeypatch):
    """Blocks traced by dynamo, with the eager backend; the real one is in tests/soak/compiled.py."""
    teacher, filters = tiny_teacher(family), FILTERS[family]
    classes, e = batch(teacher, 0)
    eager = trajectory(teacher, classes, e, filters).tokens
    monkeypatch.setenv("DD_LOOP", "compile")
    counted = []

    def backend(graph, inputs):
        counted.append(graph)
        return graph.forward

    compile = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **kw: compile(self, backend=backend, **kw))
    assert loop_of(teacher, None, None) is None
    assert torch.equal(trajectory(teacher, classes, e, filters).tokens, eager)
    assert counted
    # The cache's views share memory: a write that is traced comes out wrong in inductor.
    assert not [node for graph in counted for node in graph.graph.nodes if node.target in ("copy_", torch.Tensor.copy_)]
