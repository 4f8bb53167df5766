"""Captioned scenes (dd.datasets.scenes) from the photographs of another data set -> zoo/data/<name>/{train,test}.

Packed images (the labels are layouts), attributes.npy (what a reader should find) and captions.parquet. The
captions of what a text-to-image teacher draws also go to captions/<name>-<split>.parquet, where experiments find them.
Test scenes are made of test photographs.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from dd.datasets import scenes
from dd.datasets.packed import ImageSet, load_images, save_images
from dd.datasets.scene_images import SIZE, render
from dd.metrics.classifier import SmallClassifier
from dd.system.files import atomic_path, publish
from dd.system.progress import progress
from zoo.pixels import to_model
from zoo.settings import HERE, SceneSettings, load_settings, pick, run_zoo


def clear_photographs(data: ImageSet, classifier: SmallClassifier, most: int, surely: float) -> list[np.ndarray]:
    """Per item of the scenes, up to `most` photographs (n, H, W) that the classifier takes for it almost surely."""
    pools = []
    for label in scenes.CLASSES:
        candidates = np.flatnonzero(data.labels == label)[: 2 * most]
        images = np.asarray(data.images[candidates])
        with torch.inference_mode():
            shares = torch.cat([classifier(to_model(part)).logits.softmax(1) for part in np.array_split(images, 8)])
        pools.append(images[(shares[:, label] > surely).numpy()][:most, :, :, 0])
    return pools


def layout(things: tuple[scenes.Thing, ...]) -> int:
    """Index into `LAYOUTS`."""
    return LAYOUTS.index("-".join(scenes.REGIONS[t.region] for t in things))


LAYOUTS = (*scenes.REGIONS, *("-".join(pair) for pair in scenes.RELATIONS))


def make_split(
    split: scenes.Split, count: int, seed: int, pools: list[np.ndarray], folder: Path, jitter: int = 0
) -> None:
    """Write one split."""
    drawn = [scenes.draw_scene(seed, index, split) for index in range(count)]
    images = np.empty((count, SIZE, SIZE, 3), np.uint8)
    for index in progress(range(count), unit="scenes", label=f"scenes {split}"):
        images[index] = render(drawn[index], pools, seed, index, jitter)
    labels = np.array([layout(scene.things) for scene in drawn], dtype=np.int64)
    save_images(folder, ImageSet(images, labels, LAYOUTS))
    facts = np.stack([scenes.attributes(scene.things) for scene in drawn])
    np.save(folder / "attributes.npy", facts)
    columns = {
        "caption": pa.array([scene.caption for scene in drawn]),
        "layout": pa.array(labels.astype(np.uint8)),
        "attributes": pa.FixedSizeListArray.from_arrays(pa.array(facts.ravel()), facts.shape[1]),
    }
    pq.write_table(pa.table(columns), folder / "captions.parquet", compression="zstd", compression_level=15)


def make(settings: SceneSettings, target: Path) -> dict[str, int]:
    """Write both splits below `target`; returns their sizes."""
    classifier = SmallClassifier.load(HERE / settings.extractor / "extractor.safetensors")
    sizes: dict[scenes.Split, int] = {"train": settings.train, "test": settings.test}
    for number, (split, count) in enumerate(sizes.items()):
        photographs = load_images(HERE / "data" / settings.dataset / split)
        pools = clear_photographs(photographs, classifier, settings.photographs, settings.surely)
        make_split(split, count, settings.seed + number, pools, target / split, settings.jitter)
    return {str(split): count for split, count in sizes.items()}


def main(name: str) -> str:
    """Draw the scenes. Returns a line for the log."""
    zoo = load_settings()
    settings = pick(zoo.scenes, "scene data set", name)
    target = HERE / "data" / name
    scratch = target.with_name(f".{name}.tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    sizes = make(settings, scratch)
    publish(scratch, target)
    drawn = {zoo.tokenizers[teacher.tokenizer].dataset for teacher in zoo.teachers.values() if teacher.text_encoder}
    for split in sizes if name in drawn else ():  # any other file in captions/ would make every experiment stale
        with atomic_path(HERE.parent / "captions" / f"{name}-{split}.parquet") as copy:
            shutil.copyfile(target / split / "captions.parquet", copy)
    return f"wrote zoo/data/{name}: {', '.join(f'{v} {k} scenes' for k, v in sizes.items())}"


if __name__ == "__main__":
    run_zoo(main, __doc__)
