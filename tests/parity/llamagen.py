"""Fixtures D (tokenizer), E and F (teachers), G (student) of LlamaGen."""

from __future__ import annotations

import math
import re
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dd.models.base import Filters
from dd.models.codebook import nearest_code
from dd.models.filtering import keep_likely
from dd.models.llamagen.student import DDGPTConfig, DDLlamaGen
from dd.models.llamagen.teacher import GPT, LlamaGenTeacher
from dd.models.llamagen.tokenizer import VQConfig, VQTokenizer
from dd.models.llamagen.transformer import GPTConfig, rope_table, visible_keys
from dd.sampling.samplers import final_codes, perturb, sample
from dd.text.conditions import Captions, left_pad
from tests.parity.core import Fixture, Outputs, final_predict, gap_of_best, watch_gaps


def build_tokenizer(fixture: Fixture) -> VQTokenizer:
    """Fixture D's network with its weights."""
    c = fixture.config
    config = VQConfig(
        c["codebook_size"], c["codebook_embed_dim"], c["z_channels"], c["ch"], tuple(c["ch_mult"]), latent=c["latent"]
    )
    model = VQTokenizer(config).eval()
    model.load_state_dict(fixture.weights)
    return model


def tokenizer(fixture: Fixture) -> Outputs:
    """D: encoder, quantiser, decoder."""
    model, given = build_tokenizer(fixture), fixture.inputs
    h = model.encode_continuous(given["img"])
    codes, tokens = model.quantise(h)
    yield "enc", model.encoder(given["img"])
    yield "h", h
    yield "quant", codes
    yield "indices", tokens.flatten()
    unit = F.normalize(h, dim=1).permute(0, 2, 3, 1).flatten(0, 2).double()
    yield "idx_margin", gap_of_best(torch.cdist(unit, model.codebook.double()).square(), largest=False)
    yield "recon", model.decode_map(codes)
    yield "codebook_normalized", model.codebook
    yield "code_entry", model.to_map(model.codebook[given["code"]])
    yield "decode_code", model.decode(model.codebook[given["code"]])
    yield "decode_conti", model.decode(given["conti"])


def gpt_sizes(c: dict[str, Any]) -> dict[str, Any]:
    """The part of a GPT fixture's config that all three networks share."""
    names = ("n_layer", "n_head", "dim", "vocab_size", "block_size", "num_classes")
    return {name: c[name] for name in names}


class Unpaired(LlamaGenTeacher):
    """A teacher of which only the transformer's fixture exists; its tokenizer is only there to give the groups."""

    def __init__(self, transformer: GPT) -> None:
        c = transformer.config
        sizes = VQConfig(c.vocab_size, c.codebook_dim, 32, 32, (1,), latent=math.isqrt(c.block_size))
        super().__init__(transformer, VQTokenizer(sizes))


def build_teacher(fixture: Fixture, **more: Any) -> LlamaGenTeacher:
    """Fixture E's or F's transformer with its weights."""
    model = GPT(GPTConfig(**gpt_sizes(fixture.config), **more)).eval()
    model.load_state_dict(fixture.weights)
    return Unpaired(model)


def decode(
    teacher: LlamaGenTeacher, condition: Any, tokens: Tensor, filters: Filters, start: int = 0, end: int | None = None
) -> Tensor:
    """Guided logits (B, end - start, V) when the tokens are forced, step by step."""
    state = teacher.start(condition, filters, tokens[:, :start])
    steps = []
    for i in range(start, tokens.shape[1] if end is None else end):
        steps.append(teacher.guided_logits(state))
        teacher.advance(state, tokens[:, i : i + 1])
    return torch.cat(steps, 1)


def greedy(teacher: LlamaGenTeacher, condition: Any, filters: Filters) -> tuple[Tensor, Tensor]:
    """Tokens (B, L) and the smallest gap between the best two logits."""
    state, tokens, logits = teacher.start(condition, filters), [], []
    for _ in range(len(teacher.groups)):
        logits.append(teacher.guided_logits(state))
        tokens.append(logits[-1].argmax(-1))
        teacher.advance(state, tokens[-1])
    return torch.cat(tokens, 1), gap_of_best(torch.cat(logits, 1), largest=True)


def named_filters(name: str) -> Filters:
    """Settings from an output's name: cfg2, cfg2_interval5, k20_p0.8, t0.7_k20_p0.9, k8000."""
    parts = dict(re.findall(r"(cfg|interval|k|p|t)(\d+(?:\.\d+)?)", name.partition(".")[2]))
    return Filters(
        guidance=float(parts.get("cfg", 1)),
        top_k=int(parts.get("k", 0)),
        top_p=float(parts.get("p", 1)),
        temperature=float(parts.get("t", 1)),
        guidance_tokens=int(parts.get("interval", -1)),
    )


def class_teacher(fixture: Fixture) -> Outputs:
    """E: the class-conditional transformer."""
    teacher, given = build_teacher(fixture), fixture.inputs
    labels, tokens, gpt = given["label"], given["tokens"], teacher.transformer
    c = gpt.config
    rope = rope_table(1, math.isqrt(c.block_size), c.head_dim, torch.device("cpu"))
    yield "freqs_cis", torch.stack([rope.cos, rope.sin], -1)
    yield "tf_logits", gpt.head(gpt.run(gpt.embed(tokens, labels)))
    yield "tf_logits_uncond", gpt.head(gpt.run(gpt.embed(tokens, teacher.unconditional(labels))))
    for name in fixture.expected:
        if name.startswith("dec."):
            yield name, decode(teacher, labels, tokens, named_filters(name))
        elif name.startswith("greedy.cfg"):
            yield from zip((name, "greedy.margin"), greedy(teacher, labels, named_filters(name)), strict=True)
        elif name.startswith("filter."):
            yield name, keep_likely(given["filter_logits"], named_filters(name))
        elif name.startswith("probs."):
            yield name, keep_likely(given["filter_logits"], named_filters(name)).softmax(-1)


def caption_teacher(fixture: Fixture) -> Outputs:
    """F: the caption-conditional transformer."""
    T = fixture.config["t2i_cls_token_num"]
    teacher = build_teacher(fixture, model_type="t2i", cls_token_num=T, caption_dim=fixture.config["caption_dim"])
    given, gpt = fixture.inputs, teacher.transformer
    tokens, states, mask = given["tokens"], given["t5_embs"], given["t5_masks"].bool()
    captions = left_pad(states, mask)
    variants = {
        "nomask": Captions(captions.states, torch.ones_like(mask)),
        "rightpad": Captions(states * mask[..., None], mask),
    }
    yield "c_embs", captions.states
    yield "c_masks", captions.mask
    yield "cap_proj", gpt.cls_embedding(captions)
    x = gpt.embed(tokens, captions)
    seen = visible_keys(captions.mask, x.shape[1])
    yield "tf_logits", gpt.head(gpt.run(x))
    yield "train_mask", seen[:, None]
    yield "tf_logits_masked", gpt.head(gpt.run(x, mask=seen))
    yield "gen_mask", visible_keys(captions.mask, fixture.expected["gen_mask"].shape[1]).repeat(2, 1, 1)
    for name in fixture.expected:
        if name.startswith("dec."):
            condition = variants.get(name.rpartition("_")[2], captions)
            yield name, decode(teacher, condition, tokens, named_filters(name))
        elif name.startswith("greedy.cfg"):
            yield from zip((name, "greedy.margin"), greedy(teacher, captions, named_filters(name)), strict=True)


def student(fixture: Fixture) -> Outputs:
    """G: the student, its sampling loop and the teacher-involved path."""
    given, labels = fixture.inputs, fixture.inputs["label"]
    codes = build_tokenizer(fixture.dependency("D"))
    codebook = codes.codebook
    config = DDGPTConfig(**gpt_sizes(fixture.config), codebook_dim=fixture.config["codebook_dim"])
    model = DDLlamaGen(config).eval()
    model.load_state_dict(fixture.weights)
    groups = model.groups
    yield "codebook", codebook
    gaps = watch_gaps(model)
    for t in fixture.numbers("x_t"):
        finished = torch.full_like(labels, t)
        x = perturb(given["data"], given["noise"], finished, groups)
        output = model(x, finished, labels)
        final = final_predict(output, x, finished, groups, codebook)
        yield f"x_t.{t}", x
        yield f"idx_t.{t}", nearest_code(x, codebook)
        yield f"fwd_tokens.{t}", output.codes
        yield f"fwd_logits.{t}", output.logits
        yield f"fp_tokens.{t}", final.codes
        yield f"fp_logits.{t}", final.logits
        for split in fixture.numbers(f"final_x.t{t}"):
            yield f"final_x.t{t}.{split}", final_codes(final, groups, codebook, split)
    finished = given["t_mixed"].long()
    x = perturb(given["data"], given["noise"], finished, groups)
    final = final_predict(model(x, finished, labels), x, finished, groups, codebook)
    yield from {"mixed.x_t": x, "mixed.fp_tokens": final.codes, "mixed.fp_logits": final.logits}.items()
    settings = fixture.sampling_settings()
    for k in fixture.numbers("sample.seq"):
        steps, split = settings[k]
        sequence = sample(model, codebook, given["noise"], labels, steps, split)
        yield f"sample.seq.{k}", sequence
        if f"sample.img.{k}" in fixture.expected:
            yield f"sample.img.{k}", (codes.decode(sequence) + 1) / 2
    for name in ("teach_a", "teach_b"):
        yield from teacher_involved(fixture, name, model, codebook)
    yield "argmax_margin", torch.cat(gaps).min().reshape(1)


def teacher_involved(fixture: Fixture, name: str, model: DDLlamaGen, codebook: Tensor) -> Outputs:
    """The student's first tokens, then forced teacher tokens up to `end`, then the student."""
    given, labels, stored = fixture.inputs, fixture.inputs["label"], fixture.expected
    end = stored[f"{name}.index_sample"].shape[1]
    start = end - stored[f"{name}.guided"].shape[1]
    tokens = given["teacher_tokens"].clone()
    if start:
        split = int(fixture.setting(f"{name}.prefix_idx", r"split[ _t=]*(\d+)", 9))
        draft = sample(model, codebook, given["noise"], labels, (0,), split)
        tokens[:, :start] = nearest_code(draft[:, :start], codebook)
        yield f"{name}.prefix_idx", tokens[:, :start]
    teacher = build_teacher(fixture.dependency("E"))
    guidance = fixture.setting(f"{name}.guided", r"CFG[ =]*(\d+(?:\.\d+)?)", 2.0)
    yield f"{name}.guided", decode(teacher, labels, tokens, Filters(guidance), start, end)
    yield f"{name}.index_sample", tokens[:, :end]
    split = int(fixture.setting(f"{name}.seq", r"split[ _t=]*(\d+)", 9))
    finished = torch.full_like(labels, end)
    x = perturb(codebook[tokens], given["noise"], finished, model.groups)
    final = final_predict(model(x, finished, labels), x, finished, model.groups, codebook)
    yield f"{name}.seq", final_codes(final, model.groups, codebook, split)
