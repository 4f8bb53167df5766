"""Prefect flows over the DVC graph: they order, watch and stop the stages; DVC alone decides what must run.

graph.py        the stages and their order, as DVC reads them; targets
params.py       overrides of parameters, checked before anything runs
guard.py        the small process above each `dvc`: whatever it started ends with it
process.py      one guarded command: its lines, its end, how to stop it
slots.py        places on the accelerator, held by the kernel for as long as a stage lives
stage.py        one stage through `dvc repro -s`: ran, restored, unchanged or failed
prepare.py      everything that is checked before a run begins
local.py        a whole run without a server
flows.py        the same run as Prefect flows: experiments, sweep
farm.py         the shards of a trajectories stage as tasks on Dask workers
sweep.py        a grid over parameters, each point a DVC experiment
watch.py, table.py, count.py   events of a run; the terminal's live table; a stage's count in words
artifacts.py    what the Prefect UI shows of a run
provenance.py   what a run was made from
server.py       the project's own Prefect server; finding one that runs
epitaph.py      tells the server of a run that was killed
bench.py        what a run costs beyond DVC itself
run.py, run_sweep.py, ui.py    the commands `dd-cli run`, `dd-cli sweep` and `make ui`
terminal.py, serve.py          what the commands share; the runner of flows that were started in the browser
"""
