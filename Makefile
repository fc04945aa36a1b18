# Two commands: `make demo` shows the program at work, `make test` proves it. Each does all the
# set-up it needs, in .venv.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: demo test lint slurm-packages clean

demo: .venv/core
	$(BIN)/vendomini plan --config configs/demo.yaml
	$(BIN)/vendomini run --config configs/demo.yaml
	$(BIN)/vendomini collect demo
	@echo "The demo's table, one row a run: experiments/demo/collected/runs.csv"

test: .venv/dev slurm-packages lint
	$(BIN)/pytest -m "not slurm" -n 2
	$(BIN)/pytest -m slurm

lint: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Slurm's Debian packages, with apt when root; says what is missing otherwise. Without them the
# tests on a real Slurm are skipped, and where CI is set they fail.
slurm-packages:
	@bash tests/slurm_cluster/packages.sh || test -z "$$CI"

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/core: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/dev: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $@ .venv/core

clean:
	rm -rf .venv experiments
