"""A whole Janus of transformers in tiny sizes, vision tower and all, its processor, and a project that uses it."""

from pathlib import Path
from typing import Any

import torch

from dd.checkpoints import zoo
from tests.helpers.tiny_text import CODES, WORDS, write_data, write_text_params

V, C, SIDE = CODES["codebook_size"], CODES["codebook_dim"], CODES["latent"]
LENGTH = 14  # rows of a prompt
BOS, BOI, PAD, EOI, IMAGE = "<bos>", "<begin_of_image>", "<pad>", "<end_of_image>", "<image_placeholder>"
MARKS = [PAD, "<unk>", BOS, BOI, EOI, IMAGE]
TEMPLATE = (
    "{% for m in messages %}user: {% for part in m['content'] %}{{ part['text'] }}{% endfor %} {% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
SIZES: dict[str, Any] = {
    "dim": 16,
    "n_layer": 2,
    "n_head": 2,
    "ffn_dim": 24,
    "text_vocab": 64,
    "vocab_size": V,
    "codebook_dim": C,
    "block_size": SIDE**2,
    "cls_token_num": LENGTH,
    "caption_dim": 1,
    "bos": MARKS.index(BOS),
    "boi": MARKS.index(BOI),
    "pad": MARKS.index(PAD),
}


def whole_model(sizes: dict[str, Any] = SIZES, codes: dict[str, Any] = CODES, seed: int = 0) -> Any:
    """transformers' `JanusForConditionalGeneration` of our sizes, with random weights."""
    import transformers
    from transformers.models.janus.configuration_janus import JanusVQVAEConfig

    dim, side = sizes["dim"], codes["latent"]
    config = transformers.JanusConfig(
        text_config=transformers.LlamaConfig(
            vocab_size=sizes["text_vocab"],
            hidden_size=dim,
            intermediate_size=sizes["ffn_dim"],
            num_hidden_layers=sizes["n_layer"],
            num_attention_heads=sizes["n_head"],
            pad_token_id=sizes["pad"],
            bos_token_id=sizes["bos"],
        ),
        vision_config=transformers.JanusVisionConfig(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=2 * side,
            patch_size=2,
            projection_dim=dim,
            num_image_tokens=side**2,
        ),
        vq_config=JanusVQVAEConfig(
            embed_dim=codes["codebook_dim"],
            num_embeddings=codes["codebook_size"],
            latent_channels=codes["z_channels"],
            base_channels=codes["ch"],
            channel_multiplier=list(codes["ch_mult"]),
            num_res_blocks=codes.get("num_res_blocks", 2),
            projection_dim=dim,
            image_token_embed_dim=dim,
        ),
    )
    torch.manual_seed(seed)
    model = transformers.JanusForConditionalGeneration(config).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and "vqmodel" not in name:
            parameter.normal_(std=0.3)
    model.generation_config.generation_kwargs = {"boi_token_id": sizes["boi"]}
    model.generation_config.bos_token_id, model.generation_config.pad_token_id = sizes["bos"], sizes["pad"]
    return model


def write_processor(folder: Path) -> str:
    """A `JanusProcessor` of a few words; returns the text encoder's name."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import JanusImageProcessor, JanusProcessor, PreTrainedTokenizerFast

    words = [*MARKS, "user", "assistant", ":", *WORDS]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    begin = (BOS, words.index(BOS))
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[begin])
    marks = {"image_token": IMAGE, "boi_token": BOI, "eoi_token": EOI}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, pad_token=PAD, unk_token="<unk>", extra_special_tokens=marks
    )
    JanusProcessor(JanusImageProcessor(), fast, chat_template=TEMPLATE).save_pretrained(folder)
    return f"processor:{folder}"


def write_janus_project(root: Path) -> Any:
    """As `tiny_text.write_text_project`; the teacher's weights lie in a checkpoint that holds the whole model."""
    model = whole_model()
    place = root / "zoo" / "tiny"
    model.save_pretrained(place / "checkpoint")
    file = place / "checkpoint" / "model.safetensors"
    common: dict[str, Any] = {"family": "janus", "licence": "MIT", "source": "made in a test"}
    zoo.register("tiny-vq", "tokenizer", file, prefix="model.vqmodel.", config=CODES, **common)
    part = {"prefix": "model.", "leave": ("vqmodel.", "vision_model.", "aligner.")}
    encoder = write_processor(place / "processor")
    zoo.register("tiny", "teacher", file, tokenizer="tiny-vq", text_encoder=encoder, config=SIZES, **part, **common)
    write_text_params(root, family="janus")
    write_data(root)
    return model


def janus_model(folder: Path) -> Any:
    """A `dd.api.Model` with random weights; its processor lies in `folder`."""
    from dd.api import Model
    from dd.flow.grid import Solver
    from dd.models.base import Filters
    from dd.models.registry import build_student, build_teacher, student_config

    torch.manual_seed(0)
    teacher = build_teacher("janus", CODES, SIZES).eval().requires_grad_(False)
    student = build_student("janus", student_config(teacher, teacher_input=True, noise_logits=True))
    student.initialise_from(teacher)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    facts = {"timesteps": (0, 2), "text_encoder": write_processor(folder), "licence": "MIT", "teacher_name": "tiny"}
    return Model("toy", teacher, student.eval().requires_grad_(False), (), Filters(guidance=2.0), Solver(), **facts)
