"""What a step takes in memory: every preset, counted at full width; chunks and checkpoints change no gradient."""

from dataclasses import replace

import pytest
import torch
import yaml

from dd import config
from dd.checkpoints import zoo
from dd.distillation.memory import GB, SavedBytes, checkpoint_blocks, keep_blocks, rows_for, step_memory
from dd.errors import DDError
from dd.models.llamagen.transformer import rope_table
from dd.presets import preset_names, preset_text
from tests.helpers.paths import ROOT
from tests.helpers.tiny import tiny_pairs, tiny_student

PAGE = ROOT / "docs" / "paper-scale.md"
PAPER = [name for name in preset_names() if "global_batch" in preset_text(name)]


def preset(name: str) -> config.DistillConfig:
    text = "experiments:\n" + "".join(f"  {line}\n" for line in preset_text(name).splitlines())
    found = config.validate(yaml.safe_load(text), name).experiments[name].distill
    assert found is not None
    return found


def memory_of(name: str, **changes):
    settings = preset(name).model_copy(update=changes)
    teacher = zoo.entry(name, "teacher")
    assert teacher.tokenizer is not None
    return step_memory(teacher.family, zoo.entry(teacher.tokenizer, "tokenizer").config, teacher.config, settings)


def test_the_presets_of_the_paper_are_all_here():
    assert PAPER == ["janus-pro-1b", "llamagen-b", "llamagen-l", "llamagen-t2i", "var-d16", "var-d20", "var-d24"]


def cells_of(name: str, gigabytes: int, **changes) -> list[str]:
    """Two cells of the page's table: pairs at once, and GB; dashes where not one fits."""
    memory = memory_of(name, **changes)
    try:
        rows = rows_for(memory, gigabytes * GB, preset(name).pairs_per_update)
    except DDError:
        return ["-", "-"]
    return [str(rows), f"{memory.total(rows) / GB:.1f}"]


@pytest.mark.parametrize("name", PAPER)
def test_every_preset_takes_less_than_60_of_80_gb_a_card(name):
    memory, settings = memory_of(name), preset(name)
    assert settings.batch == "auto"
    rows = rows_for(memory, 80 * GB, settings.pairs_per_update)
    print(f"{name}: {rows} pairs at once, {memory.total(rows) / GB:.1f} GB; {memory}")
    assert rows >= 8
    assert memory.total(rows) < 60 * GB
    assert memory.total(2 * rows) > 60 * GB or rows == settings.pairs_per_update
    cells = [
        str(rows),
        f"{memory.total(rows) / GB:.1f}",
        *cells_of(name, 24),
        *cells_of(name, 24, checkpoint_blocks=True),
    ]
    assert f"| {' | '.join([name, *cells])} |\n" in PAGE.read_text(encoding="utf-8")
    whole = memory.images / settings.decode_chunk * 64
    assert whole > 60 * GB  # what the perceptual term took when it kept all images of a batch of 64


@pytest.mark.parametrize(("name", "checkpointed"), [("var-d16", True), ("llamagen-b", False)])
def test_the_smallest_presets_fit_into_24_gb(name, checkpointed):
    memory = memory_of(name, checkpoint_blocks=checkpointed)
    rows = rows_for(memory, 24 * GB, 512)
    assert rows >= 8
    assert memory.total(rows) < 18 * GB


def test_a_device_that_is_too_small_is_told_so():
    with pytest.raises(DDError) as error:
        rows_for(memory_of("var-d16"), 16 * GB, 512)
    assert str(error.value) == (
        "batch: auto: one pair needs 17 GB and 75% of this device's 16 GB may be used: set checkpoint_blocks, lower "
        "decode_chunk, or use a larger device"
    )


def test_counting_leaves_no_table_without_data_behind():
    table = rope_table(1, 3, 8, torch.device("cpu")).cos
    memory_of("llamagen-b")
    assert type(rope_table(1, 3, 8, torch.device("cpu")).cos) is torch.Tensor
    assert torch.equal(rope_table(1, 3, 8, torch.device("cpu")).cos, table)


def test_saved_bytes_of_a_known_graph():
    weight, x = torch.ones(5, 7, requires_grad=True), torch.ones(3, 7)
    with SavedBytes(iter([weight])) as saved:
        y = (x @ weight.T).exp()  # saves x and y, and the weight, which is given
        z = y.view(-1) * 2  # saves nothing new
    assert saved.total == 4 * (3 * 7 + 3 * 5)
    assert z.requires_grad


def test_lpips_saves_what_the_estimate_says():
    lpips = pytest.importorskip("lpips")
    from dd.distillation.memory import _LPIPS, _LPIPS_WEIGHTS

    network = lpips.LPIPS(net="vgg", pretrained=False, pnet_rand=True, verbose=False).eval().requires_grad_(False)
    images = torch.zeros(1, 3, 256, 256, requires_grad=True)
    with SavedBytes(network.parameters()) as saved:
        distance = network(images, torch.zeros(1, 3, 256, 256))
    assert distance.requires_grad
    assert saved.total == pytest.approx(_LPIPS, rel=0.05)
    assert sum(4 * p.numel() for p in network.parameters()) == pytest.approx(_LPIPS_WEIGHTS, rel=0.05)


def test_checkpointed_blocks_give_the_same_gradients_and_keep_less(family, teacher):
    pairs, found, saved = tiny_pairs(teacher, 4), [], []
    student = tiny_student(teacher, family)
    for checkpointed in (False, True):
        if checkpointed:
            checkpoint_blocks(student)
        student.zero_grad()
        with SavedBytes(student.parameters()) as kept:
            loss = student(pairs.noise, torch.zeros(4, dtype=torch.int64), pairs.condition).logits.square().sum()
        saved.append(kept.total)
        loss.backward()
        found.append({name: p.grad.clone() for name, p in student.named_parameters() if p.grad is not None})
    torch.testing.assert_close(found[0], found[1])
    assert saved[1] < 0.6 * saved[0]
    names = list(student.state_dict())
    keep_blocks(student)
    assert names == list(tiny_student(teacher, family).state_dict())
    assert not any("forward" in module.__dict__ for module in student.modules())


def test_memory_is_replaced_with_the_settings():
    plain, again = memory_of("llamagen-b"), memory_of("llamagen-b", checkpoint_blocks=True)
    assert again.activations < plain.activations / 2
    losses = preset("llamagen-b").losses.model_copy(update={"perceptual": 0.0})
    assert memory_of("llamagen-b", losses=losses).images == 0
    assert replace(plain, images=0).total(4) == plain.weights + 4 * plain.activations
