"""Options of ours for small text-to-image models: captions that keep their queries and keys, pixels in patches."""

import torch

from dd.models.base import Filters
from dd.models.llamagen.transformer import rope_table
from dd.models.registry import build_student, build_teacher, student_config
from dd.text.conditions import Captions
from tests.helpers.tiny_text import CODES, GPT, LENGTH, WIDTH

torch.manual_seed(0)
MASK = torch.arange(LENGTH) >= torch.tensor([[4], [7], [0]])
CAPTIONS = Captions(torch.randn(3, LENGTH, WIDTH) * MASK[..., None], MASK)
GUIDED = Filters(guidance=2.0)


def teacher(**more):
    torch.manual_seed(1)
    made = build_teacher("llamagen", CODES, {**GPT, **more}).eval().requires_grad_(False)
    for parameter in made.get_submodule("transformer").parameters():
        parameter.normal_(std=0.4)
    return made


def test_conditioning_rows_keep_their_queries_only_if_asked():
    official, ours = (rope_table(3, 2, 8, torch.device("cpu"), keep).cos[:3] for keep in (False, True))
    assert (official == 0).all()
    assert (ours == 1).all()
    assert not rope_table(3, 2, 8, torch.device("cpu"), True).sin[:3].any()


def test_officially_the_keys_of_captions_do_not_matter():
    """Without queries and keys every visible row weighs the same: scaling keys changes nothing, with them it does."""
    tokens = torch.zeros(3, 1, dtype=torch.int64)  # the first token is predicted from conditioning rows alone
    for attend in (False, True):
        made = teacher(attend_captions=attend, block_size=4)
        before = made.logits(tokens, CAPTIONS)
        width = GPT["dim"]
        made.get_submodule("transformer").layers[0].attention.wqkv.weight[width : 2 * width] *= -3
        assert torch.equal(made.logits(tokens, CAPTIONS), before) != attend


def test_decoding_with_a_cache_is_the_whole_pass():
    made = teacher()
    tokens = torch.randint(0, 16, (3, 4))
    state = made.start(CAPTIONS, GUIDED)
    parts = []
    for place in range(4):
        parts.append(made.log_probs(state))
        made.advance(state, tokens[:, place : place + 1])
    torch.testing.assert_close(torch.cat(parts, 1), made.score(tokens, CAPTIONS, GUIDED), atol=1e-4, rtol=1e-4)


def test_padding_does_not_matter():
    made = teacher()
    tokens = torch.randint(0, 16, (3, 4))
    noisy = Captions(torch.where(MASK[..., None], CAPTIONS.states, torch.randn(())), MASK)
    torch.testing.assert_close(made.logits(tokens, CAPTIONS), made.logits(tokens, noisy))


def test_the_student_has_the_option_too_and_starts_as_its_teacher():
    made = teacher()
    sizes = student_config(made, teacher_input=True)
    assert sizes["attend_captions"]
    student = build_student("llamagen", sizes).eval()
    student.initialise_from(made)
    tokens = torch.randint(0, 16, (3, 4))
    known = torch.full((3,), 4)
    with torch.no_grad():
        student.n_d_embed.weight.zero_()
        found = student(made.codebook[tokens], known, CAPTIONS).logits
    torch.testing.assert_close(found, made.logits(tokens, CAPTIONS), atol=1e-4, rtol=1e-4)
