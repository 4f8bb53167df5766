"""Stage distill: `python -m stages.distill EXPERIMENT` -> models/<experiment>/.

Trains the student on the experiment's trajectories (and the set predictor behind the baselines), or fetches a
released student. A killed run resumes in work/<fingerprint>/; the result is published as a whole. Several processes:

    DD_LAUNCH=2 dvc repro distill@EXPERIMENT      they share `global_batch` (else `batch`) pairs (dd/system/launch.py)
"""

from __future__ import annotations

from dd.distillation.stage import main
from dd.system.entry import run_stage, stage_parser

if __name__ == "__main__":
    run_stage(lambda arguments: main(arguments.name), stage_parser(__doc__), several=True)
