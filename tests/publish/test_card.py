"""The model card: what the hub asks for, for every kind of model."""

import pytest
import yaml

from dd.errors import DDError
from dd.publish.card import model_card
from dd.publish.export import export
from tests.helpers.report_rows import rows
from tests.helpers.tiny_models import tiny_model


def metadata(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def test_the_card_says_what_the_hub_asks_for():
    model = tiny_model("llamagen")
    card = model_card(model.exported().settings, rows(), model.provenance, "org/base", "samples.png", "org/toy")
    data = metadata(card)
    assert (data["license"], data["library_name"], data["base_model"]) == ("mit", "dd", "org/base")
    assert data["pipeline_tag"] == "unconditional-image-generation"
    result = data["model-index"][0]["results"][0]
    assert result["metrics"][0] == {"type": "frechet-distance", "value": 2.5, "name": "FD-toy, dd 0"}
    assert '("org/toy")' in card
    assert "| dd 0 |" in card
    assert "timesteps:" in card
    assert "arXiv:2412.17153" in card
    assert "![Samples" in card


def test_cards_of_other_kinds(tmp_path):
    settings = tiny_model("text", licence="DeepSeek Model License").exported().settings
    card = model_card(settings, [], {})
    data = metadata(card)
    assert (data["license"], data["license_name"]) == ("other", "deepseek-model-license")
    assert data["pipeline_tag"] == "text-to-image"
    assert "Not measured." in card
    assert "model-index" not in data
    with pytest.raises(DDError, match=r"toy names no licence; write it into the zoo's entry"):
        export(tiny_model("llamagen", licence=""), tmp_path / "out")
    assert not (tmp_path / "out").exists()
