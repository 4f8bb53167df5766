"""Janus against transformers: `python -m tests.parity.janus` prints the differences, on a tiny model of random weights.

tests/models/test_janus.py holds them to bounds.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dd.models.base import Filters
from dd.models.janus.teacher import JanusTeacher
from dd.models.janus.tokenizer import JanusTokenizer, JanusVQConfig
from dd.models.janus.transformer import JanusConfig, Transformer
from dd.text.conditions import Captions
from dd.trajectories.trajectory import decode
from tests.helpers.tiny_janus import whole_model

V, C, SIDE, T = 48, 4, 4, 9
BOS, BOI, PAD = 1, 2, 3
SIZES: dict[str, Any] = {"dim": 32, "n_layer": 2, "n_head": 4, "ffn_dim": 48, "text_vocab": 60, "vocab_size": V}
SIZES |= {"codebook_dim": C, "block_size": SIDE**2, "cls_token_num": T, "bos": BOS, "boi": BOI, "pad": PAD}
CODES: dict[str, Any] = {"codebook_size": V, "codebook_dim": C, "z_channels": 32, "ch": 32, "ch_mult": (1, 2)}
CODES |= {"num_res_blocks": 1, "latent": SIDE}
LENGTHS = (9, 3, 6)  # tokens of the prompts


def our_teacher(theirs: Any) -> JanusTeacher:
    """Ours, with the same weights under the same names."""
    ours = JanusTeacher(Transformer(JanusConfig(**SIZES)), JanusTokenizer(JanusVQConfig(**CODES)))
    state = {name.removeprefix("model."): tensor for name, tensor in theirs.state_dict().items()}
    codes = {name.removeprefix("vqmodel."): t for name, t in state.items() if name.startswith("vqmodel.")}
    ours.tokenizer.load_state_dict(codes)
    unread = ("vqmodel.", "vision_model.", "aligner.", "lm_head.")
    ours.transformer.load_state_dict({n: tensor for n, tensor in state.items() if not n.startswith(unread)})
    return ours.eval().requires_grad_(False)


def prompts(lengths: tuple[int, ...] = LENGTHS, rows: int = T) -> Captions:
    """Left-padded random prompts that begin with BOS and end with BOI, as the processor makes them."""
    generator = torch.Generator().manual_seed(5)
    states, mask = torch.full((len(lengths), rows, 1), PAD), torch.zeros(len(lengths), rows, dtype=torch.bool)
    for row, length in enumerate(lengths):
        words = torch.randint(4, 60, (length - 2,), generator=generator)
        states[row, -length:, 0] = torch.cat([torch.tensor([BOS]), words, torch.tensor([BOI])])
        mask[row, -length:] = True
    return Captions(states, mask)


def random_tokens(seed: int, rows: int = len(LENGTHS)) -> Tensor:
    """(rows, L)."""
    return torch.randint(V, (rows, SIDE**2), generator=torch.Generator().manual_seed(seed))


def greedy(teacher: JanusTeacher, condition: Captions, guidance: float = 5.0) -> Tensor:
    """Our decoding loop, the likeliest token each time."""
    return decode(teacher, condition, Filters(guidance=guidance), lambda log_probs, _: log_probs.argmax(-1))


def generate(theirs: Any, condition: Captions, guidance: float = 5.0) -> Tensor:
    """transformers' own."""
    ids, mask = condition.states[..., 0], condition.mask.long()
    more = {"generation_mode": "image", "do_sample": False, "guidance_scale": guidance}
    return theirs.generate(ids, attention_mask=mask, **more)


def their_logits(theirs: Any, condition: Captions, tokens: Tensor, guidance: float) -> Tensor:
    """(B, L, V) of its language model and head over the whole sequence at once, without a cache; guided above 1."""
    ids, visible = condition.states[..., 0], torch.nn.functional.pad(condition.mask.long(), (0, SIDE**2 - 1), value=1)
    images = theirs.prepare_embeddings_for_image_generation(tokens[:, :-1])

    def run(prompt: Tensor) -> Tensor:
        rows = torch.cat([theirs.get_input_embeddings()(prompt), images], 1)
        hidden = theirs.model.language_model(inputs_embeds=rows, attention_mask=visible).last_hidden_state
        return theirs.model.generation_head(hidden[:, T - 1 :])

    null = run(torch.where((ids == BOS) | (ids == BOI), ids, PAD))
    return run(ids) if guidance <= 1 else null + guidance * (run(ids) - null)


def stepwise(teacher: JanusTeacher, condition: Captions, tokens: Tensor, prefix: int = 0, **filters: Any) -> Tensor:
    """(B, L - prefix, V) log-probabilities as the decoding loop gives them."""
    state = teacher.start(condition, Filters(**filters), tokens[:, :prefix])
    parts = []
    for position in range(prefix, tokens.shape[1]):
        parts.append(teacher.log_probs(state))
        teacher.advance(state, tokens[:, position : position + 1])
    return torch.cat(parts, 1)


def rows() -> list[tuple[str, str]]:
    """What is compared, and the largest difference or the number of mismatches."""
    theirs = whole_model(SIZES, CODES)
    ours, condition, tokens = our_teacher(theirs), prompts(), random_tokens(1)
    found = []
    for guidance in (1.5, 5.0):
        wrong = int((greedy(ours, condition, guidance) != generate(theirs, condition, guidance)).sum())
        found.append((f"greedy tokens of 3 prompts of 3 lengths, guidance {guidance:g}", f"{wrong} of 48 differ"))
    for row in range(len(LENGTHS)):
        alone = condition[row : row + 1]
        wrong = int((greedy(ours, alone) != generate(theirs, condition)[row]).sum())
        found.append((f"prompt {row + 1} alone against the batch", f"{wrong} of 16 differ"))
    for guidance in (1.0, 5.0):
        expected = their_logits(theirs, condition, tokens, guidance).log_softmax(-1)
        scored = ours.score(tokens, condition, Filters(guidance=guidance))
        for name, given in (
            ("one pass", scored),
            ("step by step", stepwise(ours, condition, tokens, guidance=guidance)),
        ):
            found.append((f"log-probabilities, {name}, guidance {guidance:g}", f"{(given - expected).abs().max():.1e}"))
    images = theirs.decode_image_tokens(tokens).permute(0, 3, 1, 2) - ours.decode(ours.codebook[tokens])
    return [*found, ("decoded images", f"{images.abs().max():.1e}")]


if __name__ == "__main__":
    for name, difference in rows():
        print(f"| {name} | {difference} |")
