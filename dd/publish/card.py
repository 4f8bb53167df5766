"""The model card of an exported folder: README.md with the metadata that the hub's validator asks for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData

from dd.checkpoints.exported import Settings
from dd.errors import DDError
from dd.evaluation.rows import Row
from dd.publish.space import metadata
from dd.report.table import render

# Licences under the names that the hub knows; others go as "other" with their own name.
LICENCES = {"MIT": "mit", "Apache 2.0": "apache-2.0", "Apache-2.0": "apache-2.0"}
PAPER = """@inproceedings{liu2025distilled,
  title     = {Distilled Decoding 1: One-step Sampling of Image Auto-regressive Models with Flow Matching},
  author    = {Liu, Enshu and Ning, Xuefei and Wang, Yu and Lin, Zinan},
  booktitle = {International Conference on Learning Representations},
  year      = {2025},
  note      = {arXiv:2412.17153}
}"""


def model_card(
    settings: Settings,
    rows: Sequence[Row],
    provenance: Mapping[str, Any],
    base_model: str | None = None,
    picture: str | None = None,
    address: str = "owner/name",
) -> str:
    """README.md of a model.

    rows: its results, empty where it was not measured. provenance: how the student was made (its record in the zoo or
    in student.json). base_model: the teacher's repository, if it lies on the hub. picture: a file beside the card.
    address: the repository that the card is for. Raises DDError for a model without a licence.
    """
    if not settings.licence:
        raise DDError(f"export: {settings.name} names no licence; write it into the zoo's entry ('licence') first")
    more: dict[str, Any] = {**_licence(settings.licence), **metadata()}
    data = ModelCardData(
        library_name="dd",
        pipeline_tag="text-to-image" if settings.text_encoder else "unconditional-image-generation",
        tags=["distilled-decoding", "autoregressive", "few-step", settings.family],
        base_model=base_model,
        model_name=settings.name if rows else None,
        eval_results=_results(rows) or None,
        **more,
    )
    parts = [
        f"---\n{data.to_yaml()}\n---\n\n# {settings.name}",
        _about(settings),
        f"![Samples; a column has one noise and one condition]({picture})" if picture else "",
        f"## Use\n\n```python\n{_use(settings, address)}\n```",
        _measured(rows),
        _recipe(provenance),
        f"## Limits\n\n{_limits(settings)}",
        f"## Citation\n\n```bibtex\n{PAPER}\n```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _licence(licence: str) -> dict[str, Any]:
    if licence in LICENCES:
        return {"license": LICENCES[licence]}
    return {"license": "other", "license_name": re.sub(r"[^a-z0-9]+", "-", licence.lower()).strip("-")}


def _results(rows: Sequence[Row]) -> list[EvalResult]:
    """The student's own rows as the hub's evaluation results."""
    students = [row for row in rows if row["sampler"] == "dd" and row["value"] is not None]
    return [
        EvalResult(
            task_type="image-generation",
            dataset_type=row["protocol"],
            dataset_name=f"{row['protocol']}, {row['images']:,} images",
            metric_type="frechet-distance",
            metric_name=f"{row['metric']}, {row['label']}",
            metric_value=round(row["value"], 4),
        )
        for row in students
    ]


def _about(settings: Settings) -> str:
    steps = " or ".join(["one", "two", "three", "four"][: len(settings.timesteps)])
    what = "prompts" if settings.text_encoder else f"{len(settings.classes)} classes"
    return (
        f"A student that draws images of {what} in {steps} evaluations, distilled from the autoregressive model "
        f"`{settings.teacher}` with Distilled Decoding ([Liu et al., ICLR 2025](https://arxiv.org/abs/2412.17153)). "
        f"Licence: {settings.licence}."
    )


def _use(settings: Settings, address: str) -> str:
    wanted = 'prompts=["..."]' if settings.text_encoder else f'classes=["{(settings.classes or ("0",))[0]}"]'
    ours = 'prompt="..."' if settings.text_encoder else wanted.replace("classes", "class_labels")
    most = len(settings.timesteps)
    return (
        "import dd  # Distilled Decoding; `dd` on PyPI is another project\n\n"
        f'model = dd.load("{address}")  # or a folder\n'
        f"images = model.sample({wanted}, steps={most}, seed=0)  # (N, H, W, 3) uint8\n\n"
        "# the same through diffusers, with the extra `diffusers`\n"
        "from dd.publish.pipeline import DDPipeline\n\n"
        f'pipe = DDPipeline.from_pretrained("{address}")\nimages = pipe({ours}, num_inference_steps={most}).images'
    )


def _measured(rows: Sequence[Row]) -> str:
    if not rows:
        return "## Results\n\nNot measured."
    return f"## Results\n\n{re.sub(r'^#+ .*$', '', render(rows, 'markdown'), flags=re.M).strip()}"


def _recipe(provenance: Mapping[str, Any]) -> str:
    if not provenance:
        return ""
    text = yaml.safe_dump(dict(provenance), sort_keys=False, width=100, allow_unicode=True).strip()
    return f"## Training\n\nNothing but the teacher's own samples was trained on.\n\n```yaml\n{text}\n```"


def _limits(settings: Settings) -> str:
    guidance = (settings.filters or {}).get("guidance", 1)
    lines = [
        f"- The teacher's guidance ({guidance:g}) and filters are distilled in; they cannot be changed at sampling.",
        "- It draws worse and less varied images than its teacher; the table says by how much.",
        "- It knows what its teacher knows, with the same gaps and biases; nothing was filtered or aligned.",
        "- The distances compare the rows of one table; another extractor or number of images gives other values.",
    ]
    return "\n".join(lines)
