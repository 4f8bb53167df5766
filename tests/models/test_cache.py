"""The cache of keys and values."""

import torch

from dd.models.base import Filters
from dd.models.cache import KVCache
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
