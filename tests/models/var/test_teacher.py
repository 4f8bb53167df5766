"""VAR's guidance."""

import torch

from dd.models.base import Filters
from tests.helpers.small.models import B, V, make_case


def test_guidance_grows_with_the_scale():
    teacher, labels = make_case("var")
    tokens = torch.randint(V, (B, teacher.groups.length))
    conditional = teacher.logits(tokens, labels)
    null = teacher.logits(tokens, teacher.unconditional(labels))
    scored = teacher.score(tokens, labels, Filters(guidance=2.0))
    torch.testing.assert_close(scored[:, 0], conditional[:, 0].log_softmax(-1))
    last = teacher.groups.slice(4)
    torch.testing.assert_close(scored[:, last], (3 * conditional - 2 * null)[:, last].log_softmax(-1))
