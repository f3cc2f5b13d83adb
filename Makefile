# Two commands do everything on a fresh machine: `make repro` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export MLFLOW_DISABLE_TELEMETRY := true
export RAY_USAGE_STATS_ENABLED := 0

.PHONY: help repro test unit flow mlflow prefect lock clean

help:
	@echo "make repro    run the pipeline of params.yaml (dvc repro); the first time, install into .venv"
	@echo "make test     all tests, lint, types and the import contract"
	@echo "make unit     the quick part of the tests"
	@echo "make flow     the same pipeline as a Prefect flow"
	@echo "make mlflow   the MLflow pages of this project on http://127.0.0.1:5000"
	@echo "make prefect  a Prefect server on http://127.0.0.1:4200, a deployment for every preset, a worker"
	@echo "make lock     write requirements.lock anew from pyproject.toml"

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if v in ((3, 11), (3, 12)) else f"iddpm needs Python 3.11 or 3.12, {sys.executable} is {v[0]}.{v[1]}: make PYTHON=python3.11")'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "$(PYTHON) cannot make virtual environments: install its venv package (Debian, Ubuntu: python3-venv)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

repro: $(READY)
	iddpm prune
	dvc repro

test: $(READY)
	ruff format --check .
	ruff check .
	mypy
	lint-imports
	pytest

unit: $(READY)
	pytest -m "not tools" --ignore tests/stages --ignore tests/pipelines

flow: $(READY)
	python -m pipelines.flow

mlflow: $(READY)
	iddpm mlflow

prefect: $(READY)
	pipelines/serve.sh

lock:
	rm -rf $(VENV)-lock
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/pip install --quiet -e '.[dev]'
	{ echo "# Written by make lock. torch: the CPU or the CUDA build, whichever your package index offers."; \
	  $(VENV)-lock/bin/pip freeze --exclude-editable | sed -E 's/^(torch==[0-9.]+)\+.*/\1/'; } > requirements.lock
	rm -rf $(VENV)-lock

clean:
	rm -rf $(VENV) work .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
