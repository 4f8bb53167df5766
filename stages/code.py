"""Stage code: `python -m stages.code EXPERIMENT` -> data/<experiment>/code/: what DVC takes for the code of a stage.

One small file per stage with a digest of each Python file that it imports, and of each network of the zoo that it uses
beside the teacher. DVC runs this stage every time (half a second); the others depend on its files, so a changed formula
or extractor reruns them and a changed comment or docstring does not.
"""

from __future__ import annotations

import json

from dd import config
from dd.checkpoints import networks
from dd.system.code import CODE, PLUMBING, digests
from dd.system.entry import run_stage, stage_parser
from dd.system.files import write_text

# Further code that a stage imports and that does not decide its result.
WITHOUT = {
    "teacher": ("dd/models/", "dd/flow/", "dd/metrics/", "dd/presets/"),  # it copies and checks tensors
    "trajectories": ("dd/checkpoints/", "dd/models/heads.py", "dd/models/student.py", "dd/models/{family}/student.py"),
    "distill": ("dd/checkpoints/",),
    "evaluate": ("dd/checkpoints/",),
}


def main(name: str) -> str:
    """Write the digests of an experiment's stages. Returns nothing worth logging."""
    experiment = config.load_experiment(name)
    family = experiment.family
    used = {
        "distill": networks.digests(networks.distillation_networks(experiment)),
        "evaluate": networks.digests(networks.evaluation_networks(experiment)),
    }
    for stage, names in WITHOUT.items():
        files = [CODE / "stages" / f"{stage}.py", CODE / "dd" / "models" / family / "family.py"]  # found by its name
        found = digests(files, (*PLUMBING, *(one.format(family=family) for one in names)))
        text = json.dumps(found | used.get(stage, {}), indent=1) + "\n"
        write_text(config.project_root() / "data" / name / "code" / f"{stage}.json", text)
    return ""


if __name__ == "__main__":
    run_stage(lambda arguments: main(arguments.name), stage_parser(__doc__))
