"""Prefect flows over the DVC graph: they order, watch and stop the stages; DVC alone decides what must run.

graph.py        the stages and their order, as DVC reads them; targets
params.py       overrides of parameters, checked before anything runs
checks.py       everything that is checked before a run begins
stage.py        one stage through `dvc repro -s`: ran, restored, unchanged or failed
local.py        a whole run without a server
flows.py        the same run as Prefect flows: experiments, sweep
sweep.py        a grid over parameters, each point a DVC experiment
dask_shards.py  the shards of a trajectories stage as tasks on Dask workers
artifacts.py    what the Prefect UI shows of a run
merge_lock.py   two branches' dvc.lock as one
remote.py       what a run that pulls will not find
provenance.py   what a run was made from
events.py       what happens in a run, for listeners in this process
processes/      supervised commands that end with whoever asked for them; places on the accelerator
servers/        the project's own Prefect server, the flows in it, its UI; runs that were killed
terminal/       the commands `dd-cli run` and `dd-cli sweep`, with their live table
bench/          what a run costs beyond DVC itself
"""
