"""Tokens of the teacher's loop with compiled blocks against those without: `python -m tests.soak.compiled`.

torch.compile needs a C++ compiler and a minute or more a teacher. Compiled products round otherwise, so a token in
thousands may turn, and all that follow it.
"""

import argparse
import time

import torch

from dd.bench.map_accuracy import classes_of
from dd.bench.sampling import teacher_filters
from dd.checkpoints.teachers import load_teacher
from dd.models.compiled import compile_blocks
from dd.trajectories.noise import noise
from dd.trajectories.trajectory import balanced_classes, trajectory


def main(name: str, images: int) -> str:
    """Equal tokens of one teacher, and the seconds of the loop."""
    teacher, indices = load_teacher(name), torch.arange(images)
    e = noise(0, indices, teacher.groups.length, teacher.codebook.shape[1])
    classes, filters = balanced_classes(indices, classes_of(teacher)), teacher_filters(name)
    found, seconds = [], []
    for compiled in (False, True):
        if compiled:
            compile_blocks(teacher)
            trajectory(teacher, classes, e, filters)
        started = time.perf_counter()
        found.append(trajectory(teacher, classes, e, filters).tokens)
        seconds.append(time.perf_counter() - started)
    equal = (found[0] == found[1]).float().mean()
    return f"{name}: {equal:.4f} of {found[0].numel()} tokens equal, {seconds[0]:.2f} s and compiled {seconds[1]:.2f} s"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teacher", nargs="+", default=["llamagen-fashion", "var-fashion"])
    parser.add_argument("--images", type=int, default=16)
    arguments = parser.parse_args()
    for teacher in arguments.teacher:
        print(main(teacher, arguments.images), flush=True)
