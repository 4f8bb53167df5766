"""dd-cli export-npz hands its options on to the export."""

import pytest


def test_options_reach_the_export(cli, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr("dd.evaluation.export.export", lambda *given: seen.append(given) or "wrote it")
    out = tmp_path / "samples.npz"
    done = cli("export-npz", "toy", "--out", str(out), "--sampler", "dd 0", "-n", "12", "--images", str(tmp_path))
    assert done.output == "wrote it\n"
    assert seen == [("toy", "dd 0", 12, out, tmp_path)]
    cli("export-npz", "toy", "--out", str(out))
    assert seen[1] == ("toy", None, 50_000, out, None)


@pytest.mark.parametrize(
    ("given", "said"),
    [(["toy"], "Missing option '--out'"), (["toy", "-n", "1"], "should be greater than or equal to 2")],
)
def test_mistakes(cli, given, said):
    done = cli("export-npz", *given)
    assert done.exit_code == 2
    assert said in " ".join(done.output.replace("│", " ").split())
