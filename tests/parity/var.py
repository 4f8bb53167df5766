"""Fixtures A (tokenizer), B (teacher), C (student) of VAR."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dd.models.base import Filters
from dd.models.codebook import nearest_code
from dd.models.var.student import DDVAR, DDVARConfig
from dd.models.var.teacher import VAR, VARTeacher, var_filter
from dd.models.var.tokenizer import MultiScaleConfig, MultiScaleQuantizer, MultiScaleTokenizer, phi_indices
from dd.models.var.transformer import VARConfig
from dd.sampling.samplers import final_codes, perturb, sample
from tests.parity.core import Fixture, Outputs, final_predict, gap_of_best, watch_gaps

OFFICIAL_SCALES = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)


def tokenizer_config(c: dict[str, Any]) -> MultiScaleConfig:
    """Sizes from a VAR fixture's config."""
    return MultiScaleConfig(
        c["V"], c["Cvae"], c["ch"], patch_nums=tuple(c["patch_nums"]), share_quant_resi=c["share_quant_resi"]
    )


def build_tokenizer(fixture: Fixture) -> MultiScaleTokenizer:
    """Fixture A's network with its weights."""
    model = MultiScaleTokenizer(tokenizer_config(fixture.config)).eval()
    model.load_state_dict(fixture.weights)
    return model


def official_quantizer(fixture: Fixture) -> MultiScaleQuantizer:
    """A quantiser of the official ten scales with the fixture's weights."""
    config = replace(tokenizer_config(fixture.config), patch_nums=OFFICIAL_SCALES)
    model = MultiScaleQuantizer(config).eval()
    weights = {n.removeprefix("quantize."): w for n, w in fixture.weights.items() if n.startswith("quantize.")}
    model.load_state_dict(weights | {"ema_vocab_hit_SV": model.ema_vocab_hit_SV})
    return model


def margins(quantizer: MultiScaleQuantizer, f: Tensor) -> Tensor:
    """(K,): per scale the smallest gap between the two nearest codes, in float64."""
    maps = quantizer.quantise(f)[1]
    gaps = []
    for scale in range(len(quantizer.patch_nums)):
        residual = quantizer.shrink(f - maps[scale - 1] if scale else f, scale).flatten(2).transpose(1, 2).double()
        distances = torch.cdist(residual.flatten(0, 1), quantizer.embedding.weight.double()).square()
        gaps.append(gap_of_best(distances, largest=False))
    return torch.cat(gaps)


def walk(quantizer: MultiScaleQuantizer, tokens: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """f_hat after every scale, and the map that the next scale reads (f_hat itself at the end)."""
    maps = quantizer.accumulate([quantizer.embedding.weight[part] for part in tokens])
    following = []
    for scale, f_hat in enumerate(maps):
        side = quantizer.patch_nums[min(scale + 1, quantizer.last)]
        rows = quantizer.next_rows(f_hat, min(scale + 1, quantizer.last))
        following.append(rows.transpose(1, 2).reshape(*f_hat.shape[:2], side, side))
    return maps, following


def numbered(stem: str, tensors: list[Tensor]) -> Outputs:
    """stem.0, stem.1, ..."""
    yield from ((f"{stem}.{i}", tensor) for i, tensor in enumerate(tensors))


def tokenizer(fixture: Fixture) -> Outputs:
    """A: encoder, residual quantiser, decoder."""
    model, given = build_tokenizer(fixture), fixture.inputs
    quantizer, codebook = model.quantize, model.codebook
    f = model.encode_continuous(given["img"])
    tokens, maps = quantizer.quantise(f)
    yield "enc", model.encoder(given["img"])
    yield "f", f
    yield from numbered("idx", tokens)
    yield "idx_margin", margins(quantizer, f)
    yield from numbered("fhat", maps)
    codes = codebook[torch.cat(tokens, 1)]
    yield "var_input", model.transformer_input(codes)
    yield "fhat_to_img", model.decode(codes)
    yield "dec_unclamped", model.decode_map(maps[-1])
    drawn = fixture.series("rand_idx")
    maps, following = walk(quantizer, drawn)
    yield from numbered("rand.ar_fhat", maps)
    yield from numbered("rand.ar_next", following)
    codes = codebook[torch.cat(drawn, 1)]
    yield "rand.var_input", model.transformer_input(codes)
    yield "rand.img_last", model.decode(codes)
    yield "phi_index", torch.tensor(quantizer.phi_index)
    if "q10.f" in given:
        yield from official_scales(fixture, given["q10.f"])


def official_scales(fixture: Fixture, f: Tensor) -> Outputs:
    """The quantiser on the official ten scales."""
    quantizer = official_quantizer(fixture)
    tokens, maps = quantizer.quantise(f)
    yield from numbered("q10.idx", tokens)
    yield "q10.idx_margin", margins(quantizer, f)
    yield "q10.fhat_last", maps[-1]
    maps, _ = walk(quantizer, fixture.series("q10.rand_idx"))
    rows = [quantizer.next_rows(f_hat, scale + 1) for scale, f_hat in enumerate(maps[:-1])]
    yield "q10.rand.var_input", torch.cat(rows, 1)
    yield "q10.rand.ar_fhat_last", maps[-1]
    yield "q10.phi_index", torch.tensor(phi_indices(len(OFFICIAL_SCALES), fixture.config["share_quant_resi"]))


def transformer_sizes(c: dict[str, Any]) -> dict[str, Any]:
    """The part of a config that teacher and student share."""
    names = ("depth", "embed_dim", "num_heads", "num_classes")
    sizes = {name: c[name] for name in names}
    return sizes | {"vocab_size": c["V"], "codebook_dim": c["Cvae"], "patch_nums": tuple(c["patch_nums"])}


def build_teacher(fixture: Fixture) -> VARTeacher:
    """Fixture B's transformer and fixture A's tokenizer."""
    model = VAR(VARConfig(**transformer_sizes(fixture.config))).eval()
    model.load_state_dict(fixture.weights)
    return VARTeacher(model, build_tokenizer(fixture.dependency("A")))


def decode(teacher: VARTeacher, labels: Tensor, filters: Filters, forced: list[Tensor]) -> list[Tensor]:
    """Guided logits of every scale when the tokens are forced."""
    state, steps = teacher.start(labels, filters), []
    for tokens in forced:
        steps.append(teacher.guided_logits(state))
        teacher.advance(state, tokens)
    return steps


def teacher(fixture: Fixture) -> Outputs:
    """B: the transformer, its guided decoding and its filters."""
    model, given = build_teacher(fixture), fixture.inputs
    labels, forced = given["label"], fixture.series("forced_idx")
    tokens, null = torch.cat(forced, 1), model.unconditional(labels)
    yield "tf_logits", model.transformer(labels, given["x_wo_first"])
    yield "tf_logits_rand", model.transformer(labels, given["x_wo_first_rand"])
    yield "tf_logits_uncond", model.transformer(null, given["x_wo_first"])
    raw = model.logits(tokens.repeat(2, 1), torch.cat([labels, null]))
    yield from numbered("ar.raw", model.tokenizer.split(raw))
    for stem in dict.fromkeys(re.sub(r"\.\d+$", "", name) for name in fixture.expected if ".guided." in name):
        guidance = float(re.findall(r"cfg([\d.]+)\.", stem + ".")[0])
        yield from numbered(stem, decode(model, labels, Filters(guidance), forced))
    yield "ar.img", (model.decode(model.codebook[tokens]) + 1) / 2
    yield from greedy(fixture, model, labels)
    for name in fixture.expected:
        if name.startswith("filter."):
            yield name, var_filter(given["filter_logits"], named_filter(fixture, name))


def greedy(fixture: Fixture, model: VARTeacher, labels: Tensor) -> Outputs:
    """The likeliest token of every position."""
    state = model.start(labels, Filters(fixture.setting("greedy.idx.0", r"cfg=(\d+(?:\.\d+)?)", 1.5)))
    gaps = []
    for scale in range(len(model.groups)):
        logits = model.guided_logits(state)
        gaps.append(gap_of_best(logits, largest=True))
        yield f"greedy.idx.{scale}", logits.argmax(-1)
        model.advance(state, logits.argmax(-1))
    yield "greedy.margin", torch.cat(gaps).min().reshape(1)


def named_filter(fixture: Fixture, name: str) -> Filters:
    """k5, p0.6, k20_p0.8; README's words override p. The reference callers clamp k to V."""
    parts = dict(re.findall(r"(k|p)(\d+(?:\.\d+)?)", name.partition(".")[2]))
    top_p = fixture.setting(name, r"top_p=(\d+(?:\.\d+)?)", float(parts.get("p", 1)))
    return Filters(top_k=min(int(parts.get("k", 0)), fixture.config["V"]), top_p=top_p)


def student(fixture: Fixture) -> Outputs:
    """C: the student, its sampling loop and the teacher-involved path."""
    given, labels = fixture.inputs, fixture.inputs["label"]
    codes = build_tokenizer(fixture.dependency("A"))
    codebook = codes.codebook
    model = DDVAR(DDVARConfig(**transformer_sizes(fixture.config))).eval()
    model.load_state_dict(fixture.weights)
    groups = model.groups
    gaps = watch_gaps(model)
    starts, total = torch.tensor(groups.starts), groups.length
    yield "accum_token_length", torch.tensor([total + 1, *(total - starts).tolist()])
    yield "noise_mask", (torch.arange(total) >= starts[:-1, None]).float()
    yield "attn_allowed", model.attn_bias_for_masking[0, 0] == 0
    for t in fixture.numbers("x_t"):
        finished = torch.full_like(labels, t)
        x = perturb(given["data"], given["noise"], finished, groups)
        output = model(x, finished, labels)
        final = final_predict(output, x, finished, groups, codebook)
        yield f"x_t.{t}", x
        yield f"fwd_conti.{t}", output.codes
        yield f"fwd_logits.{t}", output.logits
        yield f"fp_conti.{t}", final.codes
        yield f"fp_logits.{t}", final.logits
        for split in fixture.numbers(f"final_seq.t{t}"):
            yield f"final_seq.t{t}.{split}", final_codes(final, groups, codebook, split)
    finished = given["t_mixed"].long()
    x = perturb(given["data"], given["noise"], finished, groups)
    final = final_predict(model(x, finished, labels), x, finished, groups, codebook)
    yield from {"mixed.x_t": x, "mixed.fp_conti": final.codes, "mixed.fp_logits": final.logits}.items()
    for k in fixture.numbers("sample.seq"):
        sequence = stored_sample(fixture, k, model, codebook, gaps)
        yield f"sample.seq.{k}", sequence
        if f"sample.img.{k}" in fixture.expected:
            yield f"sample.img.{k}", (codes.decode(sequence) + 1) / 2
    for name in ("teach_a", "teach_b"):
        yield from teacher_involved(fixture, name, model, codebook)
    yield "argmax_margin", torch.cat(gaps).min().reshape(1)


def stored_sample(fixture: Fixture, k: int, model: DDVAR, codebook: Tensor, gaps: list[Tensor]) -> Tensor:
    """Sample k by the setting that was meant; passes of the other readings of the note leave nothing in `gaps`."""
    given, tried = fixture.inputs, []
    for steps, split in settings(fixture.sampling_settings()[k], k, len(model.groups)):
        before = len(gaps)
        sequence = sample(model, codebook, given["noise"], given["label"], steps, split)
        tried.append((float((sequence - fixture.expected[f"sample.seq.{k}"]).abs().max()), sequence, gaps[before:]))
        del gaps[before:]
    _, sequence, of_it = min(tried, key=lambda one: one[0])
    gaps += of_it
    return sequence


def settings(noted: list[Any], k: int, K: int) -> list[tuple[list[int], int]]:
    """What the note on setting k can mean.

    The notes of some folders give the settings for K = 4 and say that K - 1 replaces 3 in setting 2, which leaves
    open whether the split is replaced as well.
    """
    steps, split = noted
    if k != 2 or K == 4:
        return [(steps, split)]
    moved = [K - 1 if step == 3 else step for step in steps]
    choices = [(steps, split), (moved, split), (moved, K - 1 if split == 3 else split)]
    return [choice for choice in choices if max(choice[0]) < K]


def teacher_involved(fixture: Fixture, name: str, model: DDVAR, codebook: Tensor) -> Outputs:
    """The student's first scales, then forced teacher scales up to `end`, then the student.

    The authors run the prefix without its mask, and their numbers can only be had in the same way.
    """
    given, labels = fixture.inputs, fixture.inputs["label"]
    scales = fixture.numbers(f"{name}.guided")
    start, end, starts = scales[0], scales[-1] + 1, model.groups.starts
    tokens = torch.cat(fixture.series("teacher_forced_idx"), 1)
    if start:
        split = int(fixture.setting(f"{name}.prefix_idx", r"split[ _t=]*(\d+)", 2))
        draft = nearest_code(sample(model, codebook, given["noise"], labels, (0,), split), codebook)
        yield f"{name}.prefix_idx", draft
        tokens = torch.cat([draft[:, : starts[start]], tokens[:, starts[start] :]], 1)
    teacher = build_teacher(fixture.dependency("B"))
    teacher.released_prefix = True
    guidance = fixture.setting(f"{name}.guided.{start}", r"cfg=(\d+(?:\.\d+)?)", 2.0)
    state = teacher.start(labels, Filters(guidance), tokens[:, : starts[start]])
    for scale in scales:
        yield f"{name}.guided.{scale}", teacher.guided_logits(state)
        teacher.advance(state, tokens[:, model.groups.slice(scale)])
    split = int(fixture.setting(f"{name}.seq", r"split[ _t=]*(\d+)", 3))
    finished = torch.full_like(labels, end)
    x = perturb(codebook[tokens], given["noise"], finished, model.groups)
    final = final_predict(model(x, finished, labels), x, finished, model.groups, codebook)
    yield f"{name}.seq", final_codes(final, model.groups, codebook, split)
