"""params.yaml: what ships is valid, and every mistake is one clear line before anything loads."""

import copy

import pytest
import yaml

from dd import config
from dd.errors import DDError
from tests.helpers.paths import ROOT

EXPERIMENT = {
    "family": "llamagen",
    "teacher": {"name": "tiny", "guidance": 1.5},
    "trajectories": {"pairs": 8},
    "distill": {"steps": 5, "timesteps": [0, 2]},
    "evaluate": {"samplers": [{"name": "teacher"}, {"name": "dd", "steps": [0]}]},
}


def fault(**changes) -> str:
    """The message for EXPERIMENT with changes; a key may be dotted, the value None removes it."""
    data = copy.deepcopy(EXPERIMENT)
    for key, value in changes.items():
        *path, last = key.split("__")
        place = data
        for step in path:
            place = place[step]
        if value is None:
            del place[last]
        else:
            place[last] = value
    with pytest.raises(DDError) as error:
        config.validate({"experiments": {"mine": data}})
    text = str(error.value)
    assert "\n" not in text
    assert text.startswith("params.yaml: ")
    return text.removeprefix("params.yaml: experiments.mine")


def test_shipped_params_are_valid_and_name_every_tracked_key():
    params = config.load_params(ROOT / "params.yaml")
    assert next(iter(params.experiments)) == "llamagen-fashion"
    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["experiments"]
    # DVC refuses a parameter that is not there, so what dvc.yaml tracks is written out, empty or not.
    for name, experiment in raw.items():
        assert {"family", "teacher", "trajectories", "distill", "student", "evaluate"} <= set(experiment), name


def test_shipped_experiments_measure_on_noise_that_was_not_trained_on():
    for name, experiment in config.load_params(ROOT / "params.yaml").experiments.items():
        assert experiment.trajectories is not None
        assert experiment.trajectories.seed != experiment.evaluate.seed, name


def test_a_valid_experiment():
    mine = config.validate({"experiments": {"mine": EXPERIMENT}}).experiments["mine"]
    assert mine.distill is not None
    assert mine.distill.timesteps == (0, 2)
    assert mine.evaluate.samplers[1] == config.StudentSampler(name="dd", steps=(0,))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"distill__step": 5}, ".distill.step: unknown parameter, did you mean steps?"),
        ({"trajectories__pairs": -1}, ".trajectories.pairs: input should be greater than 0, got -1"),
        ({"trajectories__pairs": "many"}, ".trajectories.pairs: input should be a valid integer"),
        ({"teacher__name": None}, ".teacher.name: missing"),
        ({"teacher__top_p": 1.5}, ".teacher.top_p: input should be less than or equal to 1, got 1.5"),
        ({"distill__timesteps": [2]}, ".distill: timesteps must hold 0 (sampling starts there), got [2]"),
        ({"distill__timesteps": [0, 0]}, ".distill: timesteps must be different and not negative, got [0, 0]"),
        ({"distill__split": -1}, ".distill.split: input should be greater than or equal to 0, got -1"),
        ({"evaluate__images": -5}, ".evaluate.images: input should be greater than or equal to 2, got -5"),
        ({"evaluate__sampler": []}, ".evaluate.sampler: unknown parameter, did you mean samplers?"),
        ({"distill__losses": {"cross_entropy": 0}}, ".distill: at least one loss weight must be above 0"),
        ({"distill__losses": {"gan": 1}}, ".distill.losses.gan: unknown parameter"),
        ({"family": "gpt"}, ".family: expected one of "),
        ({"distill": None}, ": needs exactly one of 'distill' (train a student) and 'student' (fetch a released one)"),
        ({"student": "x"}, ": needs exactly one of 'distill' (train a student) and 'student' (fetch a released one)"),
        ({"trajectories": None}, ": 'distill' needs 'trajectories'"),
    ],
)
def test_each_mistake_is_one_line_that_says_where(changes, expected):
    assert fault(**changes).startswith(expected)


def test_all_mistakes_are_listed_at_once():
    text = fault(distill__step=1, trajectories__pairs=-3)
    assert "distill.step" in text
    assert "trajectories.pairs" in text


def test_a_sampler_that_does_not_exist():
    assert "evaluate.samplers.0" in fault(evaluate__samplers=[{"name": "ddim"}])


def test_unknown_experiment_offers_the_nearest(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump({"experiments": {"llamagen-fashion": EXPERIMENT}}), encoding="utf-8")
    with pytest.raises(
        DDError, match=r"^no experiment 'lamagen-fashion' in params.yaml; did you mean llamagen-fashion"
    ):
        config.load_experiment("lamagen-fashion", path)
    with pytest.raises(DDError, match=r"there are llamagen-fashion$"):
        config.load_experiment("zzz", path)


def test_missing_and_damaged_files(tmp_path):
    with pytest.raises(DDError, match=r"expected params.yaml in .*, found none; run from the project's folder"):
        config.load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("experiments: [", encoding="utf-8")
    with pytest.raises(DDError, match=r"params.yaml: not valid YAML"):
        config.load_params(tmp_path / "params.yaml")


def test_root_is_found_from_below_and_by_the_environment(tmp_path, monkeypatch):
    (tmp_path / "zoo").mkdir()
    (tmp_path / "params.yaml").write_text("experiments: {}\n", encoding="utf-8")
    (tmp_path / "deep" / "er").mkdir(parents=True)
    monkeypatch.delenv("DD_ROOT", raising=False)
    monkeypatch.chdir(tmp_path / "deep" / "er")
    assert config.project_root() == tmp_path
    monkeypatch.setenv("DD_ROOT", str(ROOT))
    assert config.project_root() == ROOT


def test_fingerprint_follows_values_and_contents(tmp_path):
    file = tmp_path / "f"
    file.write_text("a", encoding="utf-8")
    solver = config.SolverConfig()
    one = config.fingerprint(solver, file, 3)
    assert one == config.fingerprint(solver, file, 3)
    assert one != config.fingerprint(solver.model_copy(update={"ratio": 1.1}), file, 3)
    file.write_text("b", encoding="utf-8")
    assert one != config.fingerprint(solver, file, 3)


def test_names_of_experiments_are_checked_where_they_are_read():
    experiment = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["experiments"]["var-fashion"]
    assert list(config.validate({"experiments": {"var-2": experiment}}).experiments) == ["var-2"]
    with pytest.raises(DDError, match=r"^params\.yaml: .*expected a name of up to 64 letters.*found the name 'v1\.5'"):
        config.validate({"experiments": {"v1.5": experiment}})
