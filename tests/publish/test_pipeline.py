"""The diffusers pipeline, by the checks that diffusers makes of its own: batch against single, saving, callbacks."""

import numpy as np
import pytest
import torch

import dd
from dd.checkpoints.exported import write_folder
from dd.errors import DDError
from dd.trajectories.noise import noise
from tests.helpers.tiny_janus import janus_model
from tests.helpers.tiny_models import KINDS, conditions, tiny_encoder, tiny_model

pytest.importorskip("diffusers", reason='the extra "diffusers" is not installed')

from dd.publish.pipeline import DDPipeline

__all__ = ["tiny_encoder"]
pytestmark = pytest.mark.usefixtures("tiny_encoder")


def make(kind="llamagen"):
    pipe = DDPipeline.from_model(tiny_model(kind))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def asked(kind):
    """The same conditions under the pipeline's names."""
    return {{"prompts": "prompt", "classes": "class_labels"}[k]: v for k, v in conditions(kind).items()}


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [1, 2])
def test_the_same_noise_gives_the_images_of_dd(kind, steps):
    model, pipe = tiny_model(kind), make(kind)
    length, width = model.teacher.groups.length, model.teacher.codebook.shape[1]
    e = noise(7, torch.arange(2), length, width)
    found = pipe(**asked(kind), latents=e, num_inference_steps=steps, output_type="np").images
    expected = model.sample(**conditions(kind), n=2, steps=steps, seed=7)
    assert np.abs(found * 255 - expected).max() <= 0.51  # theirs is not rounded yet
    assert found.std() > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_alone_is_what_it_is_in_a_batch(kind):
    pipe, ((name, (first, second)),) = make(kind), asked(kind).items()
    together = pipe(**{name: [first, second]}, generator=generators(1, 2), output_type="np", num_inference_steps=2)
    for place, one in enumerate((first, second)):
        alone = pipe(**{name: one}, generator=generators(1 + place), output_type="np", num_inference_steps=2)
        np.testing.assert_allclose(alone.images[0], together.images[place], atol=1e-4)
    assert np.abs(together.images[0] - together.images[1]).mean() > 0.001


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_it_draws_the_same(kind, tmp_path):
    pipe = make(kind)
    pipe.save_pretrained(tmp_path / "theirs")
    write_folder(tmp_path / "ours", tiny_model(kind).exported(), teacher=True)
    before = pipe(**asked(kind), generator=generators(1, 2), output_type="pt", num_inference_steps=2).images
    for name in ("theirs", "ours"):
        loaded = DDPipeline.from_pretrained(tmp_path / name)
        loaded.set_progress_bar_config(disable=True)
        after = loaded(**asked(kind), generator=generators(1, 2), output_type="pt", num_inference_steps=2).images
        assert torch.equal(after, before)
        assert loaded.settings.timesteps == (0, 2)
    again = DDPipeline.from_dd(str(tmp_path / "theirs"))
    again.set_progress_bar_config(disable=True)
    assert torch.equal(
        again(**asked(kind), generator=generators(1, 2), output_type="pt").images.shape and before, before
    )


def test_callbacks_see_and_change_the_codes():
    pipe, seen = make(), []

    def look(pipeline, index, finished, tensors):
        assert pipeline is pipe
        seen.append((index, finished, tensors["latents"].clone()))

    plain = pipe(["hat", "bag"], generator=generators(1, 2), num_inference_steps=2, output_type="latent").images
    looked = pipe(
        ["hat", "bag"],
        generator=generators(1, 2),
        num_inference_steps=2,
        output_type="latent",
        callback_on_step_end=look,
    ).images
    assert [(index, finished) for index, finished, _ in seen] == [(0, 0), (1, 2)]
    assert torch.equal(looked, plain)
    assert torch.equal(seen[1][2], plain)
    changed = pipe(
        ["hat", "bag"],
        generator=generators(1, 2),
        num_inference_steps=2,
        output_type="latent",
        callback_on_step_end=lambda *a: {"latents": torch.zeros_like(a[3]["latents"])} if a[1] == 1 else None,
    ).images
    assert not changed.any()
    silent = pipe("hat", callback_on_step_end=lambda *a: {"n": len(a[3])}, callback_on_step_end_tensor_inputs=[])
    assert len(silent.images) == 1


def test_kinds_of_output():
    pipe = make()
    pictures = pipe(["hat", "shoe"], num_images_per_prompt=2).images
    assert [picture.size for picture in pictures] == [(6, 6)] * 4
    assert pipe("hat", output_type="np").images.shape == (1, 6, 6, 3)
    tensor = pipe(torch.tensor([0, 2]), output_type="pt").images
    assert tensor.shape == (2, 3, 6, 6)
    assert 0 <= tensor.min() <= tensor.max() <= 1
    (plain,) = pipe(0, output_type="latent", return_dict=False)
    assert plain.shape == (1, 9, 4)
    assert pipe.get_label_ids(["bag", "hat"]) == [2, 0]
    repeated = pipe([1], num_images_per_prompt=2, generator=generators(1, 2), output_type="pt").images
    listed = pipe([1, 1], generator=generators(1, 2), output_type="pt").images
    assert torch.equal(repeated, listed)


def test_wider_noise_is_other_noise():
    pipe = make()
    narrow, wide = (pipe("hat", generator=generators(1), noise_scale=s, output_type="pt").images for s in (1, 3))
    assert not torch.equal(narrow, wide)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_close(kind, dtype, tmp_path):
    pipe = make(kind)
    before = pipe(**asked(kind), generator=generators(1, 2), output_type="pt").images
    pipe.save_pretrained(tmp_path / "saved")
    half = DDPipeline.from_pretrained(tmp_path / "saved", dtype=dtype)
    half.set_progress_bar_config(disable=True)
    inside = {
        p.dtype for n, p in half.transformer.named_parameters() if p.ndim == 2 and ("layers" in n or "blocks" in n)
    }
    assert dtype in inside
    assert half.vqvae.codebook.dtype == torch.float32
    found = half(**asked(kind), generator=generators(1, 2), output_type="pt").images
    assert (found - before).abs().mean() < 0.1
    for one, way in ((pipe, torch.float32), (half, torch.float32), (pipe, dtype)):
        one.to(way)
        networks = (one.transformer.network, pipe.transformer.network)
        assert [p.dtype for p in networks[0].parameters()] == [p.dtype for p in networks[1].parameters()]
    assert torch.equal(pipe(**asked(kind), generator=generators(1, 2), output_type="pt").images, found)


def test_half_precision_is_used():
    pipe = make()
    given = (torch.randn(2, 9, 4), torch.tensor([0, 2]), torch.tensor([0, 1]))
    full = pipe.transformer(*given).logits
    half = pipe.transformer.to(torch.bfloat16)(*given).logits
    assert half.dtype == torch.float32
    assert 0 < (half - full).abs().max() < 0.1 * full.std()


def test_wrong_questions_are_named():
    pipe, text = make(), make("text")
    for steps in (0, 3, 7):
        with pytest.raises(DDError, match=rf"num_inference_steps: expected 1..2 .*points 0, 2\), got {steps}"):
            pipe("hat", num_inference_steps=steps)
    with pytest.raises(DDError, match=r"no class 'cap'; there are hat, shoe, bag"):
        pipe("cap")
    with pytest.raises(DDError, match=r"class_labels: expected indices in 0..2, got 3"):
        pipe([0, 3])
    for given in ({}, {"prompt": "a bag"}, {"class_labels": "hat", "prompt": "a bag"}):
        with pytest.raises(DDError, match=r"this model draws from class_labels: give class_labels alone"):
            pipe(**given)
    with pytest.raises(DDError, match=r"this model draws from prompt: give prompt alone"):
        text(class_labels=[0])
    with pytest.raises(DDError, match=r"class_labels: expected at least one, got none"):
        pipe([])
    with pytest.raises(DDError, match=r"output_type: expected pil, np, pt or latent, got 'jpg'"):
        pipe("hat", output_type="jpg")
    with pytest.raises(DDError, match=r"num_images_per_prompt: expected at least 1, got 0"):
        pipe("hat", num_images_per_prompt=0)
    with pytest.raises(DDError, match=r"latents: expected noise \(1, 9, 4\), got \(2, 9, 4\)"):
        pipe("hat", latents=torch.zeros(2, 9, 4))
    with pytest.raises(DDError, match=r"expected only latents, got logits"):
        pipe("hat", callback_on_step_end_tensor_inputs=["logits"])
    with pytest.raises(DDError, match=r"expected settings; use from_pretrained, from_dd or from_model"):
        DDPipeline(pipe.transformer, pipe.vqvae)


def test_a_prompt_of_ten_thousand_characters_is_cut(caplog):
    images = make("text")(prompt="red boots " * 1000, output_type="np").images
    assert images.shape == (1, 4, 4, 3)
    assert "caption(s) longer than 10 word pieces were cut" in caplog.text


def test_the_progress_bar_counts_steps(capfd):
    pipe = DDPipeline.from_model(tiny_model("llamagen"))
    pipe("hat", num_inference_steps=2)
    assert "2/2" in capfd.readouterr().err
    pipe.set_progress_bar_config(disable=True)
    pipe("hat")
    assert "it/s" not in capfd.readouterr().err


def test_a_model_that_reads_prompts_itself(tmp_path, monkeypatch):
    """Without its teacher, prompts as ids: dd.load and the pipeline from one folder."""
    monkeypatch.undo()  # no stand-in for the encoder
    model, asked = janus_model(tmp_path / "processor"), ["a red boot", "two bags"]
    write_folder(tmp_path / "out", model.exported())
    read, pipe = dd.load(str(tmp_path / "out"), "cpu"), DDPipeline.from_pretrained(tmp_path / "out")
    expected = model.sample(prompts=asked, steps=2, seed=3)
    assert np.array_equal(read.sample(prompts=asked, steps=2, seed=3), expected)
    pipe.set_progress_bar_config(disable=True)
    e = noise(3, torch.arange(2), 4, 4)
    found = pipe(prompt=asked, latents=e, num_inference_steps=2, output_type="np").images
    assert np.abs(found * 255 - expected).max() <= 0.51
    half = pipe.to(torch.bfloat16)(prompt=asked, latents=e, output_type="np").images
    assert np.isfinite(half).all()
