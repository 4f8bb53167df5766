"""Small models of both families, at odd sizes."""

import dataclasses
import json

import torch

from dd.models.base import Filters
from dd.models.registry import build_teacher, family
from dd.text.conditions import left_pad

SCALES = (1, 2, 3, 4, 5)


V, CLASSES, B = 40, 7, 3


def make_teacher(family: str, **more):
    torch.manual_seed(0)
    if family == "var":
        codes = {"codebook_size": V, "codebook_dim": 6, "ch": 32, "ch_mult": [1, 1], "patch_nums": SCALES}
        sizes = {"depth": 3, "embed_dim": 24, "num_heads": 3, "num_classes": CLASSES, "vocab_size": V}
        sizes |= {"codebook_dim": 6, "patch_nums": SCALES}
    else:
        codes = {"codebook_size": V, "codebook_dim": 6, "z_channels": 32, "ch": 32, "ch_mult": [1, 1], "latent": 5}
        sizes = {"n_layer": 3, "n_head": 3, "dim": 24, "num_classes": CLASSES, "vocab_size": V, "block_size": 25}
    teacher = build_teacher(family, codes, sizes | more).eval().requires_grad_(False)
    teacher.tokenizer.init_weights()
    for parameter in teacher.transformer.parameters():  # away from the quiet initialisation
        parameter.copy_(torch.randn_like(parameter) * 0.3)
    return teacher


def captions():
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]])
    return left_pad(torch.randn(B, 4, 10, generator=torch.Generator().manual_seed(1)), mask)


def make_case(kind: str):
    if kind == "t2i":
        return make_teacher("llamagen", model_type="t2i", cls_token_num=4, caption_dim=10), captions()
    return make_teacher(kind), torch.tensor([0, 3, 6])


def decode(teacher, condition, tokens, filters, groups):
    starts = teacher.groups.starts
    state = teacher.start(condition, filters, tokens[:, : starts[groups]])
    parts = []
    for group in range(groups, len(teacher.groups)):
        parts.append(teacher.log_probs(state))
        teacher.advance(state, tokens[:, teacher.groups.slice(group)])
    return torch.cat(parts, 1)


FILTERS = {
    "plain": Filters(guidance=0),
    "guided": Filters(guidance=2.5),
    "filtered": Filters(guidance=1.5, top_k=20, top_p=0.9),
}


def sizes_come_back(name, said):
    """Whether the settings of both networks of a family follow from their tensors and from what is said."""
    teacher, reader = make_teacher(name), family(name).read
    found = reader.transformer(teacher.transformer.state_dict(), said)
    assert found == {key: value for key, value in plain(teacher.transformer.config).items() if key in found}
    codes = reader.tokenizer(teacher.tokenizer.state_dict(), found)
    assert codes == {key: value for key, value in plain(teacher.tokenizer.config).items() if key in codes}
    return found, codes


def plain(config):
    """A config dataclass as JSON has it."""
    return json.loads(json.dumps(dataclasses.asdict(config)))
