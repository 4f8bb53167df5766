"""python -m tests.parity FOLDER [--json]"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from dd.errors import DDError
from tests.parity import llamagen, var
from tests.parity.core import Row, read_fixtures, run_fixture, summary

COMPUTE = {
    "A": var.tokenizer,
    "B": var.teacher,
    "C": var.student,
    "D": llamagen.tokenizer,
    "E": llamagen.class_teacher,
    "F": llamagen.caption_teacher,
    "G": llamagen.student,
}


def check_folder(folder: Path) -> list[Row]:
    """Rows of every fixture in a folder; what a fixture is follows from the letter its name starts with."""
    rows = []
    for fixture in read_fixtures(folder):
        compute = COMPUTE.get(fixture.name.partition("_")[0])
        if compute is None:
            raise DDError(f"fixture {fixture.name}: expected a name that starts with one of {', '.join(COMPUTE)} and _")
        rows += run_fixture(fixture, compute)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.parity", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", action="store_true", help="every output as JSON")
    arguments = parser.parse_args()
    try:
        report = summary(check_folder(arguments.folder))
    except DDError as error:
        print(error, file=sys.stderr)
        return 2
    if arguments.json:
        print(json.dumps(report, indent=1))
        return 0 if report["passed"] else 1
    for name, worst in report["fixtures"].items():
        verdict = "pass" if worst["passed"] else "FAIL"
        print(
            f"{verdict}  {name:12} {worst['outputs']:4} outputs  max abs {worst['max_abs']:.2e}  "
            f"max rel {worst['max_rel']:.2e}  integer mismatches {worst['integer_mismatches']}"
        )
    for row in report["rows"]:
        if not row["passed"]:
            print("  ", row)
    return 0 if report["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
