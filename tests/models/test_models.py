"""Both families at odd sizes: decoding against scoring, guidance, prefixes, students, errors."""

import dataclasses
import json
import math

import pytest
import torch
import torch.nn.functional as F

from dd.errors import DDError
from dd.flow.map import map_noise
from dd.models.base import Filters
from dd.models.cache import KVCache
from dd.models.codebook import nearest_code
from dd.models.heads import FlowLogits
from dd.models.registry import build_student, build_teacher, build_tokenizer, student_config
from dd.models.var.tokenizer import phi_indices
from dd.text.conditions import Captions, left_pad

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


@pytest.mark.parametrize("groups", [0, 1, 3])
@pytest.mark.parametrize("filters", FILTERS.values(), ids=FILTERS)
@pytest.mark.parametrize("kind", ["llamagen", "t2i", "var"])
def test_score_is_what_decoding_gives(kind, filters, groups):
    teacher, condition = make_case(kind)
    tokens = torch.randint(V, (B, teacher.groups.length))
    stepwise = decode(teacher, condition, tokens, filters, groups)
    scored = teacher.score(tokens, condition, filters)[:, teacher.groups.starts[groups] :]
    torch.testing.assert_close(stepwise, scored, atol=1e-4, rtol=1e-4)
    assert torch.allclose(stepwise.exp().sum(-1), torch.ones(stepwise.shape[:2]), atol=1e-5)


@pytest.mark.parametrize(("first", "guided"), [(0, 2), (1, 3), (3, 5), (30, 25)])
def test_guidance_of_leading_tokens_only(first, guided):
    teacher, labels = make_case("llamagen")
    tokens = torch.randint(V, (B, 25))
    filters = Filters(guidance=3.0, guidance_tokens=first)
    scored = teacher.score(tokens, labels, filters)
    torch.testing.assert_close(decode(teacher, labels, tokens, filters, 0), scored, atol=1e-4, rtol=1e-4)
    everything = teacher.score(tokens, labels, Filters(guidance=3.0))
    nothing = teacher.score(tokens, labels, Filters())
    torch.testing.assert_close(scored[:, :guided], everything[:, :guided])
    torch.testing.assert_close(scored[:, guided:], nothing[:, guided:])


@pytest.mark.parametrize("kind", ["llamagen", "var"])
def test_no_work_on_the_unconditional_half_without_guidance(kind):
    teacher, labels = make_case(kind)
    off = teacher.start(labels, Filters(guidance=1.0 if kind == "llamagen" else 0.0))
    on = teacher.start(labels, Filters(guidance=2.0))
    assert (len(off.pending), len(on.pending)) == (B, 2 * B)
    assert (off.cache.kv.shape[2], on.cache.kv.shape[2]) == (B, 2 * B)
    if kind == "llamagen":
        state = teacher.start(labels, Filters(guidance=2.0, guidance_tokens=0))
        tokens = torch.zeros(B, 1, dtype=torch.int64)
        rows = []
        for _ in range(4):
            rows.append(len(state.pending))
            teacher.advance(state, tokens)
        assert rows == [2 * B, 2 * B, B, B]


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


def test_guidance_grows_with_the_scale():
    teacher, labels = make_case("var")
    tokens = torch.randint(V, (B, teacher.groups.length))
    conditional = teacher.logits(tokens, labels)
    null = teacher.logits(tokens, teacher.unconditional(labels))
    scored = teacher.score(tokens, labels, Filters(guidance=2.0))
    torch.testing.assert_close(scored[:, 0], conditional[:, 0].log_softmax(-1))
    last = teacher.groups.slice(4)
    torch.testing.assert_close(scored[:, last], (3 * conditional - 2 * null)[:, last].log_softmax(-1))


def test_phi_ties_are_float64():
    assert phi_indices(10, 4) == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]
    assert phi_indices(6, 4) == [0, 0, 1, 2, 3, 3]
    assert phi_indices(4, 4) == [0, 1, 2, 3]
    assert phi_indices(5, 4)[2] in (1, 2)
    assert phi_indices(1, 4) == [0]


@pytest.mark.parametrize("kind", ["llamagen", "var"])
def test_tokenizer_round_trip_and_gradients(kind):
    config = dataclasses.asdict(make_teacher(kind).tokenizer.config)
    tokenizer = build_tokenizer(kind, json.loads(json.dumps(config)))
    images = torch.rand(2, 3, tokenizer.image_size, tokenizer.image_size) * 2 - 1
    tokens = tokenizer.encode(images)
    assert tokens.shape == (2, tokenizer.groups.length)
    assert tokenizer.decode(tokenizer.codebook[tokens]).shape == images.shape
    z = tokenizer.encode_continuous(images)
    codes = tokenizer.quantise(z)[0] if kind == "llamagen" else tokenizer.quantize.quantise(z)[1][-1]
    z.retain_grad()
    codes = codes if kind == "llamagen" else z + (codes - z).detach()
    tokenizer.decode_map(codes).square().mean().backward()
    assert z.grad.abs().sum() > 0
    with pytest.raises(DDError, match=r"expected images \(B, 3, 10, 10\), got \(1, 3, 8, 8\); resize them first"):
        tokenizer.encode(torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"teacher_input": True, "noise_logits": True, "refinements": 1, "layers": 2},
        {"teacher_input": True, "flow_steps": 3, "refinements": 2},
    ],
)
@pytest.mark.parametrize("kind", ["llamagen", "t2i", "var"])
def test_student_reads_every_position(kind, options):
    teacher, condition = make_case(kind)
    config = json.loads(json.dumps(student_config(teacher, **options)))
    student = build_student("var" if kind == "var" else "llamagen", config)
    student.initialise_from(teacher)
    noise = torch.randn(B, student.groups.length, 6)
    finished = torch.tensor([0, 1, 3])
    output = student(noise, finished, condition)
    assert output.logits.shape == (B, student.groups.length, V)
    assert output.codes.shape == noise.shape
    assert len(output.auxiliary) == options.get("refinements", 0)
    single = student(noise[1:2], finished[1:2], condition[1:2])
    torch.testing.assert_close(single.logits, output.logits[1:2], atol=1e-4, rtol=1e-4)
    sum(part.square().mean() for part in (output.logits, output.codes, *output.auxiliary)).backward()
    idle = {
        name for name, parameter in student.named_parameters() if parameter.requires_grad and parameter.grad is None
    }
    assert idle == set()


@pytest.mark.parametrize("kind", ["llamagen", "t2i", "var"])
def test_student_with_teacher_input_starts_as_the_teacher(kind):
    teacher, condition = make_case(kind)
    student = build_student("var" if kind == "var" else "llamagen", student_config(teacher, teacher_input=True))
    student.initialise_from(teacher)
    tokens, groups = torch.randint(V, (B, student.groups.length)), student.groups
    for finished in (0, 2):
        x = teacher.codebook[tokens].clone()
        x[:, groups.starts[finished] :] = torch.randn_like(x[:, groups.starts[finished] :])
        here = groups.slice(finished)
        logits = student(x, torch.full((B,), finished), condition).logits[:, here]
        torch.testing.assert_close(logits, teacher.logits(tokens, condition)[:, here], atol=1e-4, rtol=1e-4)


def test_flow_logits_come_close_to_the_map():
    """From the probabilities themselves a few steps give most of the exact map's tokens; more steps give more."""
    generator = torch.Generator().manual_seed(0)
    codebook = F.normalize(torch.randn(64, 8, generator=generator), dim=-1)
    log_probs = (3 * torch.randn(3000, 64, generator=generator)).log_softmax(-1)
    noise = torch.randn(3000, 8, generator=generator)
    exact = map_noise(noise, log_probs, codebook).tokens
    found = []
    for steps in (2, 4, 8):
        term = FlowLogits(16, 8, 64, steps)
        term.init_weights(codebook)
        logits = term(noise[None], torch.zeros(1, 3000, 16), log_probs[None])[0]
        found.append((logits.argmax(-1) == exact).float().mean().item())
    best = max(((log_probs + gain * noise @ codebook.t()).argmax(-1) == exact).float().mean() for gain in range(1, 9))
    assert found[0] < found[1] < found[2]
    assert found[1] > best
    assert found[2] > 0.85


@pytest.mark.parametrize("kind", ["llamagen", "var"])
def test_official_initialisation_keeps_class_one(kind):
    """The authors' code overwrites the embedding of class 1; ours copies it."""
    teacher, _ = make_case(kind)
    student = build_student(kind, student_config(teacher))
    student.initialise_from(teacher)
    theirs, ours = teacher.transformer.state_dict(), student.state_dict()
    name = "class_emb.weight" if kind == "var" else "cls_embedding.embedding_table.weight"
    assert torch.equal(theirs[name], ours[name])
    if kind == "var":
        assert torch.equal(ours["lvl_embed.weight"][2:], theirs["lvl_embed.weight"][1:])
        assert torch.equal(ours["pos_1LC"][:, 2:], theirs["pos_1LC"][:, 1:])
    else:
        embedded = student.tok_embeddings(teacher.codebook)
        wanted = theirs["tok_embeddings.weight"]
        assert (embedded - wanted).square().mean() < (wanted.mean(0) - wanted).square().mean()


def test_student_mistakes_are_explained():
    teacher, other = make_teacher("llamagen"), make_teacher("var")
    student = build_student("llamagen", student_config(teacher))
    with pytest.raises(DDError, match="expected a LlamaGen teacher, got VARTeacher"):
        student.initialise_from(other)
    wide = build_student("llamagen", student_config(teacher, dim=36))
    with pytest.raises(DDError, match=r"expected the teacher's .* \(8, 24\) in the student, got \(8, 36\)"):
        wide.initialise_from(teacher)
    with pytest.raises(DDError, match="at most the teacher's 3 layers, got 9"):
        build_student("llamagen", student_config(teacher, layers=9)).initialise_from(teacher)
    with pytest.raises(DDError, match="refinements need teacher_input"):
        build_student("var", student_config(other, refinements=1))


def test_bad_settings_are_explained():
    teacher, labels = make_case("var")
    with pytest.raises(DDError, match=r"expected temperature 1 and guidance_tokens -1, got 0.5 and -1"):
        teacher.start(labels, Filters(temperature=0.5))
    with pytest.raises(DDError, match=f"expected at most {V} .*got {V + 1}"):
        teacher.start(labels, Filters(top_k=V + 1))
    with pytest.raises(DDError, match=r"prefix: expected whole scales, \(0, 1, 5, 14, 30\) tokens, got 2"):
        teacher.start(labels, Filters(), torch.zeros(B, 2, dtype=torch.int64))
    with pytest.raises(DDError, match=r"classes: expected indices 0\.\.6 \(7 for none\), got 0\.\.9"):
        teacher.start(torch.tensor([0, 9]), Filters())
    with pytest.raises(DDError, match="family: expected one of janus, llamagen, var, got 'mar'"):
        build_tokenizer("mar", {})
    with pytest.raises(DDError, match=r"VQConfig: expected the settings codebook_size, .*depth"):
        build_tokenizer("llamagen", {"depth": 3})
    with pytest.raises(DDError, match="tokenizer ch: expected a multiple of 32"):
        build_tokenizer("llamagen", {"ch": 48})
    with pytest.raises(DDError, match="block_size: expected a square number of tokens, got 24"):
        make_teacher("llamagen", block_size=24)
    with pytest.raises(DDError, match=f"expected a transformer of {V} codes and 25 tokens .* got {V} codes and 36"):
        make_teacher("llamagen", block_size=36)
    with pytest.raises(DDError, match=r"on scales \(1, 2, 3, 4, 5\).* got 40, 6, \(1, 5\)"):
        make_teacher("var", patch_nums=(1, 5))
    full = torch.zeros(B, 25, dtype=torch.int64)
    state = make_teacher("llamagen").start(labels, Filters(), full[:, :24])
    teacher = make_teacher("llamagen")
    teacher.advance(state, full[:, :1])
    with pytest.raises(DDError, match="all 25 tokens are drawn"):
        teacher.log_probs(state)


@pytest.mark.parametrize("kind", ["llamagen", "t2i", "var"])
def test_bfloat16_decoding_stays_close(kind):
    teacher, condition = make_case(kind)
    for parameter in teacher.transformer.parameters():
        parameter.mul_(0.3)
    tokens = torch.randint(V, (B, teacher.groups.length))
    exact = decode(teacher, condition, tokens, Filters(guidance=1.5), 0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = decode(teacher, condition, tokens, Filters(guidance=1.5), 0)
        state = teacher.start(condition, Filters())
    assert state.cache.kv.dtype == torch.bfloat16
    assert half.dtype == torch.float32
    assert (exact - half).abs().max() < 0.3


@pytest.mark.parametrize("kind", ["llamagen", "var"])
def test_initial_weights_learn(kind):
    teacher, labels = make_case(kind)
    teacher.transformer.requires_grad_(True).init_weights()
    tokens = torch.randint(V, (B, teacher.groups.length))
    optimizer = torch.optim.AdamW(teacher.transformer.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        logits = teacher.logits(tokens, labels)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten())
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[0] == pytest.approx(math.log(V), abs=0.1)
    assert losses[-1] < 0.7 * losses[0]


def test_nearest_code_in_small_pieces():
    codebook, x = torch.randn(50, 6), torch.randn(4, 9, 6)
    brute = (x[:, :, None] - codebook).square().sum(-1).argmin(-1)
    assert torch.equal(nearest_code(x, codebook), brute)
    assert torch.equal(nearest_code(x, codebook, max_scores=120), brute)
    assert nearest_code(x[:, :0], codebook).shape == (4, 0)
    assert nearest_code(torch.ones(1, 2), torch.ones(3, 2)).item() == 0
    with pytest.raises(DDError, match=r"expected vectors of width 6 .* got 5"):
        nearest_code(x[..., :5], codebook)


def test_left_padding_moves_the_text_behind():
    states = torch.arange(8.0).reshape(1, 4, 2) + 1
    padded = left_pad(states, torch.tensor([[1, 1, 0, 0]]))
    assert padded.mask.tolist() == [[False, False, True, True]]
    assert padded.states.tolist() == [[[0, 0], [0, 0], [1, 2], [3, 4]]]
    assert len(padded[:1]) == 1
    assert isinstance(padded.to("cpu"), Captions)
