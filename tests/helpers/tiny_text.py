"""A text encoder of a few thousand weights in the packaged model's format, and a project that draws from captions."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from safetensors.torch import save

from dd.checkpoints import zoo
from dd.checkpoints.safe import save_tensors
from dd.datasets import scenes
from dd.metrics.classifier import ClassifierConfig, SmallClassifier
from dd.metrics.extractors import ClassifierExtractor
from dd.metrics.references import build_reference
from dd.models.registry import build_teacher

WIDTH, LENGTH = 12, 10
WORDS = ["a", "red", "blue", "black", "boot", "boots", "bag", "to", "the", "left", "of", "above", "two", "and", "small"]
SIZE, TEST = 4, 40
CODES = {"codebook_size": 16, "codebook_dim": 4, "z_channels": 32, "ch": 32, "ch_mult": [1, 1], "latent": 2}
GPT: dict[str, Any] = {
    "n_layer": 1,
    "n_head": 2,
    "dim": 16,
    "vocab_size": 16,
    "block_size": 4,
    "ffn_multiple": 16,
    "model_type": "t2i",
    "cls_token_num": LENGTH,
    "caption_dim": WIDTH,
    "attend_captions": True,
}


def word_tokenizer() -> Any:
    """Words to numbers, with marks around them, as the library `tokenizers` has them."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def write_archive(path: Path, width: int = WIDTH) -> Path:
    """A BERT of two layers as `dd.text.encoders.read_minilm` reads it."""
    from transformers import BertConfig, BertModel

    settings = {
        "hidden_size": width,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "vocab_size": 40,
        "max_position_embeddings": 32,
    }
    torch.manual_seed(0)
    weights = {k: v.contiguous() for k, v in BertModel(BertConfig(**settings)).state_dict().items()}
    with zipfile.ZipFile(path, "w") as files:
        files.writestr("config.json", json.dumps({**settings, "architectures": ["BertModel"], "model_type": "bert"}))
        files.writestr("tokenizer.json", word_tokenizer().to_str())
        files.writestr("model.safetensors", save(weights))
    return path


def write_captions(path: Path, split: scenes.Split, count: int) -> None:
    """Captions of scenes with what a reader should find, as zoo/scenes.py writes them."""
    drawn = [scenes.draw_scene(0, index, split) for index in range(count)]
    facts = torch.tensor([scenes.attributes(scene.things).tolist() for scene in drawn], dtype=torch.int8).numpy()
    columns = {
        "caption": [scene.caption for scene in drawn],
        "layout": pa.array([len(scene.things) for scene in drawn], pa.uint8()),
        "attributes": pa.FixedSizeListArray.from_arrays(pa.array(facts.ravel()), facts.shape[1]),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def write_text_project(root: Path) -> None:
    """A project with the experiment `toy` of a t2i teacher with random weights. Needs DD_ROOT to be it."""
    write_teacher(root)
    write_text_params(root)
    write_data(root)


def write_teacher(root: Path) -> None:
    """The teacher `tiny` in the project's zoo."""
    torch.manual_seed(0)
    teacher = build_teacher("llamagen", CODES, GPT)
    for parameter in teacher.get_submodule("transformer").parameters():
        parameter.data.normal_(std=0.3)
    folder = root / "zoo" / "tiny"
    save_tensors(folder / "tokenizer.safetensors", teacher.tokenizer.state_dict())
    save_tensors(folder / "transformer.safetensors", teacher.get_submodule("transformer").state_dict())
    common: dict[str, Any] = {"family": "llamagen", "licence": "MIT", "source": "made in a test"}
    zoo.register("tiny-tokenizer", "tokenizer", folder / "tokenizer.safetensors", config=CODES, **common)
    more: dict[str, Any] = {"tokenizer": "tiny-tokenizer", "text_encoder": "all-minilm-l6-v2", "config": GPT}
    zoo.register("tiny", "teacher", folder / "transformer.safetensors", **more, **common)


def write_data(root: Path) -> None:
    """Captions, and what the evaluation measures with."""
    write_captions(root / "captions" / "train.parquet", "train", 24)
    write_captions(root / "captions" / "test.parquet", "test", TEST)
    extractor = root / "zoo" / "toy" / "extractor.safetensors"
    SmallClassifier(ClassifierConfig(3, SIZE, (4, 5), (0, 0))).save(extractor)
    heads = ClassifierConfig(sum(scenes.HEADS), SIZE, (4, 5), (0, 0), heads=scenes.HEADS)
    SmallClassifier(heads).save(root / "zoo" / "toy-reader" / "extractor.safetensors")
    images = torch.randint(0, 255, (TEST, 3, SIZE, SIZE), dtype=torch.uint8)
    target = root / "zoo" / "toy" / "reference.safetensors"
    build_reference(target, "fd-toy", ClassifierExtractor(extractor), [images], torch.arange(TEST) % 2 + 1, "test")


def write_text_params(
    root: Path, captions: dict[str, str] | None = None, family: str = "llamagen", **teacher: Any
) -> None:
    """params.yaml of it."""
    files = {"train": "captions/train.parquet", "test": "captions/test.parquet"} | (captions or {})
    experiment = {
        "family": family,
        "condition": "text",
        "teacher": {"name": "tiny", "guidance": 2.0, "captions": files, **teacher},
        "trajectories": {"pairs": 40, "held_out": 8, "shard_size": 16, "batch": 8},
        "distill": {"steps": 3, "batch": 4, "warmup": 1, "precision": "fp32", "timesteps": [0, 2]},
        "evaluate": {
            "protocol": "fd-toy",
            "images": TEST,
            "batch": 16,
            "samplers": [{"name": "teacher"}, {"name": "dd", "steps": [0, 2]}],
        },
    }
    (root / "params.yaml").write_text(yaml.safe_dump({"experiments": {"toy": experiment}}))
