# Osler. `make run` starts everything with a demo patient, `make test` runs the tests. Both install what they need first.
SHELL := /bin/bash
.DEFAULT_GOAL := help
UV_VERSION := 0.13.9
PYTHON ?= python3.11
BOOT := .cache/uv
UV := $(shell command -v uv 2>/dev/null || echo $(BOOT)/bin/uv)
export UV_PYTHON_DOWNLOADS := never
export UV_PYTHON := $(PYTHON)
PY := .venv/bin/python
DATA ?=

.PHONY: help run test checks pytest lint types imports protos protos-check format test-unit test-contract test-e2e test-load test-cluster test-faults assets clean

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

run: .venv/.run assets ## start Osler with the demo patient (or yours: make run DATA=folder)
	@$(PY) -m services.cli --home var up $(if $(DATA),--data "$(DATA)",--demo)

# The checks run beside the tests, which wait much of their time for servers to start.
test: .venv/.test assets ## every check and test that fits in 15 minutes
	@$(MAKE) --no-print-directory -j 2 pytest checks

checks: lint types imports protos-check

pytest: .venv/.test assets
	@$(PY) -m pytest tests/e2e/test_embedded.py tests/contract tests/unit -n 2 --dist loadfile --no-loadscope-reorder --tb=native

test-unit: .venv/.test ## fast tests
	@$(PY) -m pytest tests/unit -n 2 --dist loadfile --no-loadscope-reorder --tb=native

test-contract: .venv/.test ## both sides of every pair of back ends
	@$(PY) -m pytest tests/contract

test-e2e: .venv/.test assets ## end to end: embedded, one command, Kafka and PostgreSQL, a full disk, the board in browsers, Keycloak
	@$(PY) -m pytest tests/e2e

test-load: .venv/.test ## benchmarks; print ratios against a named peer
	@$(PY) -m pytest tests/load -s

test-cluster: .venv/.test ## the chart on a real control plane, built from Go modules the first time (needs go, helm)
	@$(PY) -m pytest tests/cluster

test-faults: .venv/.test ## random faults on three Kafka brokers and PostgreSQL (root; SCHEDULES=200 SEED=1)
	@$(PY) -m tests.faults --schedules $(or $(SCHEDULES),200) --seed $(or $(SEED),1) --results .cache/faults.jsonl

lint: .venv/.test ## ruff
	@$(PY) -m ruff check . && $(PY) -m ruff format --check .

types: .venv/.test ## mypy
	@$(PY) -m mypy

imports: .venv/.test ## import-linter: the walls of the house
	@.venv/bin/lint-imports

protos: .venv/.test ## write the stubs from protos/
	@$(PY) -m pipelines.protos

protos-check: .venv/.test ## stubs are those of the .proto files; buf lints them where it is installed
	@$(PY) -m pipelines.protos --check
	@BUF=$$(command -v buf || { [ -x "$$HOME/go/bin/buf" ] && echo "$$HOME/go/bin/buf"; } || true); \
	if [ -n "$$BUF" ]; then (cd protos && $$BUF lint); else echo "buf is not installed: protos not linted (go install github.com/bufbuild/buf/cmd/buf@latest)"; fi

format: .venv/.test ## let ruff format and fix
	@$(PY) -m ruff check --fix . ; $(PY) -m ruff format .

assets: .venv/.run ## browser parts of the board, pinned (offline once there)
	@$(PY) -m pipelines.assets

clean: ## remove what was built here (not your data in var/)
	@rm -rf .venv .cache/uv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

# One environment; the stamps say how far it has been installed. Nothing is downloaded again while the lock stands.
.venv/.run: pyproject.toml uv.lock | $(UV)
	@echo "Installing Osler (first time: about 5 GB, mostly torch)"
	@$(UV) sync --frozen --inexact --no-dev --extra all
	@touch $@

.venv/.test: pyproject.toml uv.lock | $(UV)
	@echo "Installing Osler and its development tools (first time: about 5 GB, mostly torch)"
	@$(UV) sync --frozen --inexact --extra all
	@touch $@ .venv/.run

$(BOOT)/bin/uv:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing: sudo apt-get install python3.11 python3.11-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "Python's venv module is missing: sudo apt-get install python3.11-venv" >&2; exit 1; }
	@echo "Installing uv $(UV_VERSION) into $(BOOT)"
	@$(PYTHON) -m venv $(BOOT) && $(BOOT)/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

uv:
	@true
