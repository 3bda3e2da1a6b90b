.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
export WANDB_SILENT := true

.PHONY: help setup demo bench test lint format lock clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(STAMP) ## make .venv and install the locked, hash-checked requirements

# pip only brings uv, which reads the lock; the stamp is renewed when the lock changes
$(STAMP): requirements.lock pyproject.toml
	@echo "setting up .venv (once; about 6 GB)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or newer is needed; try make PYTHON=python3.11 $(MAKECMDGOALS)"; rm -rf .venv; exit 2; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

demo: $(STAMP) ## the main job on embedded data: digits, a small CNN, single-gradient unlearning
	$(BIN)/python -m unlearn

bench: $(STAMP) ## seconds of a measured step, by part; REFERENCE=DIR (and PYHESSIAN=DIR) beside the authors' code; BENCH="..." more
	$(BIN)/python scripts/benchmark.py $(if $(REFERENCE),--reference $(REFERENCE)) $(if $(PYHESSIAN),--pyhessian $(PYHESSIAN)) $(BENCH)

test: $(STAMP) ## run the tests, on CPU and without network
	$(BIN)/python -m pytest

lint: $(STAMP) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## let ruff lay out the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(STAMP) ## resolve pyproject.toml anew
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --quiet -o requirements.lock

clean: ## remove what the tools left behind; outputs/ stays
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache build *.egg-info
