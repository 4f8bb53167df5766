"""The cache of keys and values."""

import torch
from torch import nn

from dd.models import compiled
from dd.models.base import Filters
from dd.models.cache import KVCache, Window
from tests.helpers.small.models import B, V, decode, make_case


def test_caches_are_allocated_once(monkeypatch):
    made = []
    original = KVCache.__init__
    monkeypatch.setattr(KVCache, "__init__", lambda self, *args: (made.append(1), original(self, *args))[1])
    for kind in ("llamagen", "var"):
        made.clear()
        teacher, labels = make_case(kind)
        tokens = torch.randint(V, (B, teacher.groups.length))
        decode(teacher, labels, tokens, Filters(guidance=2.0), 0)
        assert len(made) == 1


def test_blocks_are_compiled_and_writing_to_the_cache_is_not(monkeypatch):
    monkeypatch.setattr(Window, "write", Window.write)  # puts it back afterwards
    seen = []
    monkeypatch.setattr(nn.Linear, "compile", lambda module, dynamic: seen.append((module, dynamic)))
    model = nn.Sequential()
    model.layers = nn.ModuleList(nn.Linear(1, 1) for _ in range(2))
    model.tokenizer = nn.Module()
    model.tokenizer.layers = nn.ModuleList([nn.Linear(1, 1)])
    compiled.compile_blocks(model)
    assert seen == [(model.layers[0], True), (model.layers[1], True)]
    assert getattr(Window.write, "_torchdynamo_disable", False)
