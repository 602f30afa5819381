# One-word targets. Everything happens in .venv; nothing is installed elsewhere.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST := $(BIN)/python -m pytest
SOURCES := src broker workers gateway compose tests load examples
VERSIONS := 3.11 3.12 3.13
IMAGE_PYTHON ?= 3.12
COMPOSE = $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose) -f compose/docker-compose.yml

.DEFAULT_GOAL := help
.PHONY: help install demo test unit e2e chaos chaos-night soak fuzz compose-test fmt lint types features check test-all load load-peers wheelhouse up down clean

help: ## show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:[^#]*## /\t/' | expand -t 16

install: $(STAMP) ## make .venv with the package and its test tools

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

demo: install ## index and search handwritten digits, write digits-result/index.html
	$(BIN)/streamflow hello digits

test: install ## all tests that need no container engine
	$(PYTEST) -m 'not slow'

unit: install ## tests that start nothing
	$(PYTEST) -m 'not slow' tests/unit

e2e: install ## tests that start the command line
	$(PYTEST) -m 'not slow' tests/e2e

chaos: install ## processes killed at length, hostile bodies by the ten thousand, random flows; CHAOS_SEED repeats a run
	STREAMFLOW_FLOWS=300 STREAMFLOW_KILLED_FLOWS=100 $(PYTEST) tests/chaos

chaos-night: install ## the same at the sizes of a night (hours)
	CHAOS_SIZE=night STREAMFLOW_FLOWS=3000 FUZZ_NUMBER=1000000 $(PYTEST) tests/chaos

soak: install ## half an hour at 70 % load: what every process needs, and that nothing grows; SOAK_S sets the seconds
	SOAK_S=$${SOAK_S:-1800} $(PYTEST) tests/chaos/test_soak.py

fuzz: install ## mutated bodies for each protocol, requests out of the OpenAPI document; FUZZ_SEED and FUZZ_NUMBER set the run
	$(PYTEST) tests/chaos/test_fuzz.py tests/chaos/test_openapi.py

compose-test: install ## the compose stack on a Docker engine, or as processes where none can run; says which
	$(PYTEST) tests/compose

fmt: install ## format and fix
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

lint: install ## format and style, checked
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)

types: install ## mypy, strict
	$(BIN)/mypy

features: install ## write docs/features.md from the marks of the tests and the last results
	$(BIN)/python -m tests.features

check: lint types test ## what CI runs: format, lint, types, tests

test-all: ## unit tests on every supported Python that is here
	@.ci/each-python $(VERSIONS)

load: install ## load profiles, side by side with the peers that are installed; results in load/results
	$(BIN)/python -m load run all

load-peers: ## install the peers for `make load`, each in an environment of its own
	load/make-peers.sh

wheelhouse: install ## fill .cache/wheelhouse, so that the image builds without network (IMAGE_PYTHON=3.12)
	$(BIN)/python -c 'from tests.compose.engine import fill_wheelhouse; fill_wheelhouse("$(IMAGE_PYTHON)")'

up: ## start the compose stack on http://127.0.0.1:8080
	$(COMPOSE) up --build --detach --wait

down: ## stop it; volumes stay
	$(COMPOSE) down

clean: ## remove what the targets above made
	rm -rf $(VENV) .venv-* .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist digits-result multimodal-result src/*.egg-info
	find src broker workers gateway compose tests load examples -name __pycache__ -type d -prune -exec rm -rf {} +
