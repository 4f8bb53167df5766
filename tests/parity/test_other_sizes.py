"""The parity suite on a folder of other sizes (5 scales with a tie in the phi rule, a 5 x 5 grid): nothing is tuned.

The folder is made here from our own networks, so what it stores agrees; that every output is computed at all, and that
outputs which are made in different ways agree with each other, is what these tests are about.
"""

import json
import math
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.helpers.paths import GOLDEN
from tests.parity.__main__ import COMPUTE, check_folder
from tests.parity.core import Fixture, summary

SIDES, B, V, C, T, CLASSES = [1, 2, 3, 4, 5], 3, 48, 6, 7, 5
L_VAR, GRID = sum(side * side for side in SIDES), 25
VAR = {"V": V, "Cvae": C, "ch": 32, "share_quant_resi": 4, "patch_nums": SIDES, "B": B}
VAR_NET = VAR | {"depth": 3, "embed_dim": 48, "num_heads": 3, "num_classes": CLASSES}
VQ = {"codebook_size": V, "codebook_embed_dim": C, "z_channels": 32, "ch": 32, "ch_mult": [1, 1, 2, 2, 4], "latent": 5}
GPT = {"n_layer": 3, "n_head": 3, "dim": 48, "vocab_size": V, "block_size": GRID, "num_classes": CLASSES, "B": B}
GPT |= {"codebook_dim": C, "caption_dim": 20, "t2i_cls_token_num": T}
TICKS = np.linspace(1 / 12, 11 / 12, 4)
CONFIGS = dict(zip("ABCDEFG", (VAR, VAR_NET, VAR_NET, VQ, GPT, GPT, GPT), strict=True))


def integers(high: int, *shape: int) -> Tensor:
    return torch.randint(high, shape)


def per_scale(stem: str, sides: list[int], batch: int = B) -> dict[str, Tensor]:
    return {f"{stem}.{k}": integers(V, batch, side * side) for k, side in enumerate(sides)}


def inputs(letter: str) -> dict[str, Tensor]:
    """Random inputs of a fixture."""
    labels, images = {"label": integers(CLASSES, B)}, {"img": torch.rand(B, 3, 80, 80) * 2 - 1}
    draft = {"noise": torch.randn(B, L_VAR if letter == "C" else GRID, C), "t_mixed": torch.tensor([0, 2, 4])}
    draft |= {"data": torch.randn_like(draft["noise"])} | labels
    rows = {"x_wo_first": torch.randn(B, L_VAR - 1, C), "x_wo_first_rand": torch.randn(B, L_VAR - 1, C)}
    mask = (torch.arange(T) < torch.tensor([[T], [2], [4]])).long()
    return {
        "A": images | per_scale("rand_idx", SIDES),
        "B": labels | rows | per_scale("forced_idx", SIDES) | {"filter_logits": torch.randn(B, 3, V)},
        "C": draft | per_scale("teacher_forced_idx", SIDES),
        "D": images | {"code": integers(V, B, GRID), "conti": torch.randn(B, GRID, C)},
        "E": labels | {"tokens": integers(V, B, GRID), "filter_logits": torch.randn(B, V)},
        "F": {"t5_embs": torch.randn(B, T, 20), "t5_masks": mask, "tokens": integers(V, B, GRID)},
        "G": draft | {"teacher_tokens": integers(V, B, GRID)},
    }[letter]


def outputs(letter: str, names: list[str]) -> dict[str, Tensor]:
    """The shipped folder's outputs, for 5 scales; where a shape decides what is computed, it is the right one."""
    found = [name for name in names if not name.startswith("q10.")]
    for name in tuple(found):
        stem, _, number = name.rpartition(".")
        if letter in "ABC" and number in ("3", "4") and not stem.startswith(("sample", "final_seq")):
            found.append(f"{stem}.{int(number) + 1}")
    found += [f"final_seq.t{t}.{split}" for t in range(6) for split in range(6) if letter == "C"]
    length = 8 * math.ceil((T + GRID) / 8)
    shapes = {"gen_mask": (2 * B, length, length), "sample.seq": (B, L_VAR if letter == "C" else GRID, C)}
    shapes |= {"teach_a.index_sample": (B, 7), "teach_a.guided": (B, 4, V), "teach_b.index_sample": (B, 6)}
    shapes |= {"teach_b.guided": (B, 6, V)}
    return {name: torch.zeros(shapes.get(re.sub(r"\.\d$", "", name), (1,))) for name in dict.fromkeys(found)}


def random_weights(letter: str, fixture: Fixture) -> dict[str, Tensor]:
    """A state dict of the network that the fixture is about: random, of the module that is to load its weights."""
    found: dict[str, Tensor] = {}
    real = torch.nn.Module.load_state_dict

    def load(module: torch.nn.Module, state: dict[str, Tensor]) -> None:
        if state is not fixture.weights:  # those of another fixture
            real(module, state)
            return
        found.update({name: fresh(name, tensor) for name, tensor in module.state_dict().items()})
        raise StopAsyncIteration

    with pytest.MonkeyPatch.context() as patch, suppress(StopAsyncIteration):
        patch.setattr(torch.nn.Module, "load_state_dict", load)
        dict(COMPUTE[letter](fixture))
    return found


def fresh(name: str, tensor: Tensor) -> Tensor:
    """Random weights; buffers that follow from the sizes stay."""
    if not tensor.is_floating_point() or "attn_bias" in name or "hit_SV" in name:
        return tensor.clone()
    return torch.randn_like(tensor) * (1.0 if "embedding" in name else 0.1)


def make_fixture(target: Path, name: str, entry: dict[str, Any], readme: dict[str, Any]) -> None:
    """Write one fixture's weights and io."""
    letter, fixture = name[0], Fixture(target, name, entry, readme)
    stored = outputs(letter, [n.removeprefix("out.") for n in entry["tensors"] if n.startswith("out.")])
    # A Fixture reads its files on first use; here it is given what they will hold.
    vars(fixture).update(inputs=inputs(letter), expected=stored, weights={})
    vars(fixture)["weights"] = random_weights(letter, fixture)
    save_file(fixture.weights, target / entry["files"]["weights"])
    with torch.inference_mode():
        computed = dict(COMPUTE[letter](fixture))
    assert set(stored) <= set(computed)
    io = {f"in.{n}": t for n, t in fixture.inputs.items()} | {f"out.{n}": computed[n] for n in stored}
    save_file({n: t.clone().contiguous() for n, t in io.items()}, target / entry["files"]["io"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """README.json, weights and stored outputs of all seven fixtures."""
    torch.manual_seed(7)
    target = tmp_path_factory.mktemp("golden")
    shipped = json.loads((GOLDEN / "README.json").read_text(encoding="utf-8"))
    readme: dict[str, Any] = {}
    for name, entry in shipped.items():
        if not name.startswith("_"):
            files = {"weights": f"{name}.w.safetensors", "io": f"{name}.io.safetensors"}
            readme[name] = {**entry, "config": CONFIGS[name[0]], "files": files}
            make_fixture(target, name, readme[name], readme)
    (target / "README.json").write_text(json.dumps(readme))
    return target


@pytest.fixture(scope="module")
def stored(folder) -> dict[str, dict[str, Tensor]]:
    """Outputs by the fixture's letter."""
    return {path.name[0]: load_file(path) for path in folder.glob("*.io.safetensors")}


def test_every_output_is_computed_at_other_sizes(folder):
    report = summary(check_folder(folder))
    assert [row for row in report["rows"] if not row["passed"]] == []
    assert {name[0] for name in report["fixtures"]} == set(COMPUTE)


def test_a_changed_weight_is_noticed(folder, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    changed = next(tmp_path.glob("C_*.w.safetensors"))
    weights = load_file(changed)
    weights["blocks.1.attn.scale_mul_1H11"] *= 0.5
    changed.unlink()
    save_file(weights, changed)
    report = summary(check_folder(tmp_path))
    assert [name[0] for name, worst in report["fixtures"].items() if not worst["passed"]] == ["C"]


def test_decoding_step_by_step_agrees_with_one_pass(stored):
    b, e, f = stored["B"], stored["E"], stored["F"]
    raw = [b[f"out.ar.raw.{k}"] for k in range(len(SIDES))]
    for k, both in enumerate(raw):
        cond, null = both.chunk(2)
        for cfg in (1.5, 4):
            t = cfg * k / (len(SIDES) - 1)
            assert_close(b[f"out.ar.cfg{cfg}.guided.{k}"], (1 + t) * cond - t * null)
    cond, null = e["out.tf_logits"][:, :-1], e["out.tf_logits_uncond"][:, :-1]
    guided = null + 2 * (cond - null)
    assert_close(e["out.dec.cfg1"], cond)
    assert_close(e["out.dec.cfg2"], guided)
    assert_close(e["out.dec.cfg2_interval5"], torch.cat([guided[:, :7], cond[:, 7:]], 1))
    assert_close(f["out.dec.cfg1"], f["out.tf_logits_masked"][:, T - 1 : -1])


def test_maps_agree_with_their_parts(stored):
    a = stored["A"]
    # Scale 2 of 5 lies exactly between two phi convolutions; float64 decides, as in the official code.
    assert a["out.phi_index"].tolist() == [int(np.argmin(np.abs(TICKS - k / 4))) for k in range(5)]
    assert_close(a["out.fhat_to_img"], a["out.dec_unclamped"].clamp(-1, 1))
    assert_close(a["out.rand.ar_next.4"], a["out.rand.ar_fhat.4"])
    rows = [a[f"out.rand.ar_next.{k}"].flatten(2).transpose(1, 2) for k in range(4)]
    assert_close(a["out.rand.var_input"], torch.cat(rows, 1))
    assert a["out.idx.4"].shape == (B, 25)


def assert_close(ours: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(ours, expected, atol=2e-4, rtol=1e-4)
