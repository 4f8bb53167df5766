"""Stage trajectories: `python -m stages.trajectories EXPERIMENT` -> data/<experiment>/trajectories/.

The (noise, tokens) pairs of an experiment, shard by shard in work/<fingerprint>/, and published as a whole when every
shard is there. A killed run resumes where it stopped. All ways to run it give the same bytes:

    python -m stages.trajectories NAME                                          one thread per core, or the accelerator
    DD_LAUNCH=2 python -m stages.trajectories NAME                              each process takes every second shard
    python -m stages.trajectories NAME --dask-workers 4                         a local Dask cluster
    python -m stages.trajectories NAME --part 3/16                              one job of an array; publishes nothing
    python -m stages.trajectories NAME --dask tcp://scheduler:8786              any Dask cluster that shares this folder
"""

from __future__ import annotations

from dd.system.entry import run_stage, stage_parser
from dd.trajectories.stage import start

if __name__ == "__main__":
    parser = stage_parser(__doc__)
    parser.add_argument("--threads", type=int, default=0, help="shards at once on a CPU; default one per core")
    parser.add_argument("--dask-workers", type=int, default=0, help="start a Dask cluster of so many worker processes")
    parser.add_argument("--dask", help="address of a Dask scheduler whose workers see this folder")
    parser.add_argument("--part", metavar="K/N", help="only every N-th shard from K on, for an array of jobs")
    parser.add_argument("--out", help="publish elsewhere: a path, or any URL that fsspec knows")
    run_stage(start, parser, several=True)
