"""Opening an evaluation, what it refuses, and a whole measurement on a small random network."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from dd.errors import DDError
from dd.evaluation import measure as evaluate
from dd.evaluation.measure import Evaluation, open_evaluation
from dd.metrics import distances
from dd.metrics.extractors import ClassifierExtractor
from dd.metrics.images import image_files, read_images
from dd.metrics.moments import Estimate
from dd.metrics.protocols import protocol
from dd.metrics.references import Reference
from tests.helpers.toy_metrics import CLASSES, SIZE, TOY, N, batches, pictures

pytestmark = pytest.mark.usefixtures("few_subsets")


def test_measuring_the_reference_itself(evaluation: Evaluation):
    images, labels = pictures(N, seed=1)
    row = evaluation.measure(batches(images, labels)).row()
    assert row["metric"] == "FD-toy, N=240"
    assert row["value"] == pytest.approx(0, abs=1e-6)
    assert row["precision"] == pytest.approx(1, abs=0.03)  # the stored features are float16
    assert row["diversity"] == pytest.approx(1, rel=1e-6)
    assert 1 <= row["inception_score"] <= CLASSES
    assert row["missing"] == {}
    assert row["paired_distance"] is None
    for name in ("value", "kid", "inception_score", "precision", "recall", "diversity"):
        assert row[f"{name}_error"] is not None, name


def test_batches_do_not_matter(evaluation: Evaluation):
    images, labels = pictures(N, seed=2)
    a = evaluation.measure(batches(images, labels, 7))
    b = evaluation.measure(batches(images, labels, 240))
    assert a.row()["value"] == pytest.approx(b.row()["value"], rel=1e-4)
    assert a.row()["value"] > 0
    assert evaluation.measure(batches(images, labels), partner=a).paired_distance.value == pytest.approx(0, abs=1e-5)


def test_more_images_are_cut_and_fewer_refused(evaluation: Evaluation):
    images, labels = pictures(N + 30, seed=2)
    assert evaluation.measure(batches(images, labels, 100)).images == N
    with pytest.raises(DDError, match="expected 240 images, the sampler gave 100"):
        evaluation.measure(batches(images[:100], labels[:100]))


def test_faults_in_the_extractor_thread_reach_the_caller(evaluation: Evaluation):
    bad = torch.full((300, 3, SIZE, SIZE), float("nan"))
    with pytest.raises(DDError, match="expected finite images"):
        evaluation.measure(batches(bad, None))


def test_unlabelled_images_have_no_diversity(evaluation: Evaluation):
    images, _ = pictures(N)
    measured = evaluation.measure(batches(images, None))
    assert measured.diversity is None
    assert "labelled" in measured.missing["diversity"]


def test_other_classes_than_the_partner_are_refused(evaluation: Evaluation):
    images, labels = pictures(N)
    partner = evaluation.measure(batches(images, labels))
    with pytest.raises(DDError, match="the same classes in the same order"):
        evaluation.measure(batches(images, labels.flip(0)), partner=partner)


def test_images_are_kept_on_request(evaluation: Evaluation, tmp_path: Path):
    images, labels = pictures(N)
    evaluation.measure(batches(images, labels), pngs=tmp_path / "png")
    assert torch.equal(torch.cat(list(read_images(image_files(tmp_path / "png")))), images)


def test_everything_is_checked_before_the_first_image(extractor, reference, tmp_path, monkeypatch):
    with pytest.raises(DDError, match="expected at least 2 images, got 1"):
        open_evaluation(TOY, 1, tmp_path)
    with pytest.raises(DDError, match="no reference for protocol fd-toy"):
        open_evaluation(TOY, 9, tmp_path, extractor=extractor, reference=tmp_path / "none.safetensors")
    (tmp_path / "file").write_text("")
    with pytest.raises(DDError, match=r"cannot write to .*file"):
        open_evaluation(TOY, 9, tmp_path / "file", extractor=extractor, reference=reference.path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("U", (), {"free": 1 << 20})())
    with pytest.raises(DDError, match=r"expected \d+ MiB of free space for .*, got 1 MiB"):
        open_evaluation(TOY, 9, tmp_path, extractor=extractor, reference=reference.path, keep_images=True)


def test_several_may_look_whether_a_folder_can_be_written(tmp_path: Path):
    """The processes of one evaluation do so at the same moment."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(evaluate.check_folder, [tmp_path / "out"] * 2000))
    assert not list((tmp_path / "out").iterdir())


def test_missing_weights_are_refused_before_the_first_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for allowed in ((), ("reference",), ("inception-pytorch",)):  # the name must be that of this protocol's network
        with pytest.raises(
            DDError, match=r"^FID cannot be measured: .*fetch https://.*allow_missing: \[inception-tf\]$"
        ):
            open_evaluation(protocol("adm"), 50_000, tmp_path, allow_missing=allowed)


def test_a_missing_reference_is_refused_unless_it_is_named(
    extractor: ClassifierExtractor, reference: Reference, tmp_path: Path
):
    lost = tmp_path / "none.safetensors"
    with pytest.raises(DDError, match=r"no reference for protocol fd-toy at .*none\.safetensors"):
        open_evaluation(TOY, 9, tmp_path, extractor=extractor, reference=lost)
    opened = open_evaluation(TOY, 9, tmp_path, extractor=extractor, reference=lost, allow_missing=("reference",))
    assert "no reference for protocol fd-toy" in opened.measure(iter(())).row()["missing"]["value"]
    there = open_evaluation(
        TOY, 9, tmp_path, extractor=extractor, reference=reference.path, allow_missing=("reference",)
    )
    assert there.reference is not None


def test_missing_weights_that_are_allowed_are_reported_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    opened = open_evaluation(protocol("adm"), 50_000, tmp_path, allow_missing=("inception-tf",))
    row = opened.measure(iter(())).row()
    assert row["metric"] == "FID"
    assert row["value"] is None
    assert "fetch https://" in row["missing"]["value"]


def test_few_images_are_warned_about(extractor: ClassifierExtractor, reference: Reference, tmp_path: Path):
    opened = open_evaluation(TOY, 5, tmp_path, extractor=extractor, reference=reference.path)
    measured = opened.measure(batches(*pictures(5)))
    assert measured.notes == ("5 images for 6 features: the covariance is rank-deficient and the distance biased",)


def test_a_kid_that_says_little_is_warned_about(
    extractor: ClassifierExtractor, reference: Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(distances, "kernel", lambda *_: Estimate(0.30, 0.18))
    opened = open_evaluation(TOY, 9, tmp_path, extractor=extractor, reference=reference.path)
    expected = "KID of 9 images is known to 0.18 only: compare no rows by it"
    assert expected in opened.measure(batches(*pictures(9))).notes
    monkeypatch.setattr(distances, "kernel", lambda *_: Estimate(0.30, 0.01))
    assert expected not in opened.measure(batches(*pictures(9))).notes


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_calls_beside_the_caller(device):
    """In order, all of them done at the end; an error comes out, and nothing more is begun."""
    done: list[int] = []
    with evaluate._Beside(torch.device(device)) as beside:
        for number in range(20):
            beside.do(done.append, number)
            assert number - len(done) <= evaluate.IN_FLIGHT
    assert done == list(range(20))
    with pytest.raises(ZeroDivisionError), evaluate._Beside(torch.device(device)) as beside:
        beside.do(lambda: [1 / 0])
    with pytest.raises(KeyError), evaluate._Beside(torch.device(device)):  # the caller's own error comes out as well
        raise KeyError
