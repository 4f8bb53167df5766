"""Stage evaluate: `python -m stages.evaluate EXPERIMENT` -> results/<experiment>/.

Every sampler of the experiment's `evaluate.samplers` becomes one row of rows.json; with them come metrics.json (for
`dvc metrics`), a grid of samples from the same noise, the quality plot and the training curves.
"""

from __future__ import annotations

from pathlib import Path

from dd.evaluation.stage import main
from dd.system.entry import run_stage, stage_parser

if __name__ == "__main__":
    parser = stage_parser(__doc__)
    parser.add_argument("--images", type=Path, help="keep every image as a PNG below this folder")
    run_stage(lambda arguments: main(arguments.name, arguments.images), parser, several=True)
