"""Rows collected from the results, and compared with those of a revision."""

import json
import subprocess
from pathlib import Path

import pytest

from dd.errors import DDError
from dd.report.blocks import dirty_notes
from dd.report.collect import collect, compare, render_comparison, rows_at
from tests.helpers.paths import ROOT
from tests.helpers.report_rows import imagined_rows, write_results


def git(root: Path, *arguments: str) -> None:
    who = ("-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *who, *arguments], cwd=root, check=True, capture_output=True)


def test_committed_results_come_from_commits():
    for file in sorted((ROOT / "results").glob("*/rows.json")):
        collect(ROOT, [file.parent.name], committed=True)


def test_a_row_from_a_tree_with_changes_is_refused(tmp_path: Path):
    rows = imagined_rows()
    write_results(tmp_path, rows, drawn=False)
    assert len(collect(tmp_path, committed=True)) == len(rows)
    for revision in ("0" * 40 + "-dirty", None):
        rows[2]["revision"] = revision
        write_results(tmp_path, rows, drawn=False)
        with pytest.raises(
            DDError, match=rf"measured from a commit, found revision {revision} in llamagen-toy: commit"
        ):
            collect(tmp_path, committed=True)
        assert len(collect(tmp_path)) == len(rows)
    rows[2]["revision"] = "0" * 40 + "-dirty"
    assert dirty_notes(rows) == ["llamagen-toy: measured from a working tree that differed from its commit"]


def test_comparison_with_a_revision(tmp_path: Path):
    write_results(tmp_path, imagined_rows(scale=1.2), drawn=False)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "results/llamagen-toy/rows.json")
    git(tmp_path, "commit", "-qm", "before")
    rows = imagined_rows()
    rows[3]["precision"], rows[3]["precision_error"] = 0.85, 0.01
    lines = compare(rows, rows_at(tmp_path, "HEAD"), "HEAD")
    found = {(sampler, metric): rest for _, sampler, metric, *rest in lines[1:]}
    assert found["dd 0", "FD-toy"] == ["6.48", "5.40", "-1.08", "yes"]
    assert found["real", "FD-toy"] == ["0.216", "0.180", "-0.0360", "yes"]
    assert found["dd 0", "precision"] == ["0.830", "0.850", "+0.0200", ""]  # no error, no verdict
    assert found["dd 0", "kid"][3] == "no"
    assert lines[0][3] == "HEAD"
    assert render_comparison(lines, "csv").splitlines()[0].startswith("experiment,sampler,metric,HEAD,now")
    assert render_comparison(lines, "table").count("\n") == len(lines) + 1
    first = json.loads(render_comparison(lines, "json"))[0]
    assert first == {
        "experiment": "llamagen-toy",
        "sampler": "real",
        "metric": "FD-toy",
        "before": "0.216",
        "now": "0.180",
        "change": "-0.0360",
        "beyond_2_errors": "yes",
    }
    with pytest.raises(DDError, match="has the formats table, markdown, csv and json, got latex"):
        render_comparison(lines, "latex")


def test_comparison_with_a_dvc_experiment(tmp_path: Path):
    write_results(tmp_path, imagined_rows(scale=1.2), drawn=False)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "results/llamagen-toy/rows.json")
    git(tmp_path, "commit", "-qm", "an experiment")
    git(tmp_path, "update-ref", "refs/exps/00/1234/lr-5e-4", "HEAD")
    git(tmp_path, "update-ref", "-d", "HEAD")
    assert rows_at(tmp_path, "lr-5e-4") == imagined_rows(scale=1.2)


def test_comparison_of_other_metrics_and_new_rows():
    old, new = imagined_rows(), imagined_rows()
    new[3]["metric"] = "FD-toy, N=2k"
    new[4]["label"] = "dd 0,8"
    lines = compare(new, old, "v1")
    assert ["llamagen-toy", "dd 0", "FD-toy, N=2k", "was FD-toy", "5.40", "", "not comparable"] in lines
    assert ["llamagen-toy", "dd 0,8", "", "–", "new", "", ""] in lines
    assert ["llamagen-toy", "dd 0,16", "", "was there", "–", "", ""] in lines


def test_comparison_needs_a_revision_with_results(tmp_path: Path):
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-qm", "empty", "--allow-empty")
    with pytest.raises(DDError, match=r"git cannot show that revision \(.*nothing"):
        rows_at(tmp_path, "nothing")
    with pytest.raises(DDError, match="revision HEAD holds no results"):
        rows_at(tmp_path, "HEAD")


def test_missing_and_damaged_results(tmp_path: Path, imagined_results: Path):
    with pytest.raises(DDError, match=r"expected results/<experiment>/rows.json, found none: run `dvc repro`"):
        collect(tmp_path)
    with pytest.raises(DDError, match="no results of vra; there are llamagen-toy"):
        collect(imagined_results, ["vra"])
    (tmp_path / "results" / "x").mkdir(parents=True)
    (tmp_path / "results" / "x" / "rows.json").write_text('{"rows": [')
    with pytest.raises(DDError, match=r"rows\.json is damaged .*: run the experiment's stage evaluate again"):
        collect(tmp_path)
