# The few words that people and CI use. Everything lives in .venv; nothing else is touched.
.DEFAULT_GOAL := help
SHELL := /bin/bash

PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8000
TESTS ?= tests
JOBS ?= 3
DURATION ?= 600
FUZZ_SECONDS ?= 120
SEED ?=

# Images of Python often set it, and uv installs packages without their byte code: each process would
# compile Ray, MLflow and pandas for itself, which is half of a gateway's start.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
INSTALLED := .venv/.installed

# A .venv of another Python than the one that was asked for isn't used without a word.
ifeq ($(origin PYTHON),command line)
ifneq ($(wildcard $(BIN)/python),)
MINOR := -c 'import sys; print("%d.%d" % sys.version_info[:2])'
ifneq ($(shell $(PYTHON) $(MINOR)),$(shell $(BIN)/python $(MINOR)))
$(error .venv is of Python $(shell $(BIN)/python $(MINOR)), and PYTHON=$(PYTHON) another: remove .venv, or leave PYTHON out)
endif
endif
endif

.PHONY: help install demo test unit flavors coverage compose-test notebook-test old-servers clients-test generators bench bench-quick chaos fuzz lint screenshots format constraints clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

install: $(INSTALLED) ## Install modelmux, the demo and the tools into .venv

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) isn't a Python of 3.11 or newer, which modelmux needs; name one: make PYTHON=…"; exit 2; }
	@echo "Installing into .venv (the first time this takes a minute or more) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv torch
	@# uv takes a fifth of pip's time, and leaves the torch that pip has chosen as it is.
	@$(BIN)/python -m uv pip install --python $(BIN)/python -c constraints.txt -e '.[demo,tracing,dev]'
	@touch $@

demo: $(INSTALLED) ## Start an MLflow server with demo models and the gateway (PORT=, HOST=)
	@exec $(BIN)/modelmux demo --host $(HOST) --port $(PORT)

test: $(INSTALLED) ## Run the whole test suite (TESTS= for a part, JOBS= processes)
	$(BIN)/python -m pytest -n $(JOBS) --no-loadscope-reorder -m "not alone and not generators" $(TESTS)
	@# Of the whole suite only the files that have some are read; 5: none of that part.
	@$(BIN)/python -m pytest -m alone $(if $(filter-out tests,$(TESTS)),$(TESTS),$$(grep -rl --include='test_*.py' 'mark\.alone' tests)) || [ $$? = 5 ]

unit: $(INSTALLED) ## Run the tests that need neither Ray nor a server
	$(BIN)/python -m pytest tests/unit

flavors: $(INSTALLED) ## Try each of MLflow's flavors in an environment of its own
	FLAVORS=all $(BIN)/python -m pytest tests/flavors

coverage: $(INSTALLED) ## Run the unit tests and tell what they don't reach; fails below the floor
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest tests/unit
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

compose-test: $(INSTALLED) ## Build and run docker-compose.yml, and its story; skipped without a Docker engine
	$(BIN)/python -m pytest --timeout=1800 --log-cli-level=WARNING tests/compose

notebook-test: $(INSTALLED) ## Serve the notebook's own classes on transformers 4 beside the demo's models on 5
	$(BIN)/python -m pytest --timeout=1800 --log-cli-level=WARNING tests/notebook

old-servers: $(INSTALLED) ## Read registries on real MLflow servers of other releases, which uv installs
	$(BIN)/python -m pytest --timeout=1800 tests/old_servers

generators: $(INSTALLED) ## Generate clients of the OpenAPI document, compile them and call with them
	$(BIN)/python -m pytest --timeout=1800 tests/generators

clients-test: $(INSTALLED) ## Try other projects' clients of the Open Inference Protocol, installed by uv beside
	$(BIN)/python -m pytest --timeout=1800 tests/clients

bench: $(INSTALLED) ## Measure modelmux beside its peers and its floor (BENCH= for options)
	$(BIN)/python -m benchmarks $(BENCH)

bench-quick: $(INSTALLED) ## Measure modelmux beside its floor only, in under 3 minutes
	$(BIN)/python -m benchmarks --quick $(BENCH)

chaos: $(INSTALLED) ## A soak under random faults: ten minutes (DURATION= seconds, SEED= repeats one)
	$(BIN)/python -m tests.chaos --duration-s $(DURATION) $(if $(SEED),--seed $(SEED))

fuzz: $(INSTALLED) ## Requests, bodies and bytes by chance against a gateway (FUZZ_SECONDS=, SEED=)
	@seed=$(or $(SEED),$$RANDOM); echo "SEED=$$seed FUZZ_SECONDS=$(FUZZ_SECONDS)"; \
	SEED=$$seed FUZZ_SECONDS=$(FUZZ_SECONDS) FUZZ_EFFORT=20 $(BIN)/python -m pytest \
		--hypothesis-seed=$$seed --timeout=1800 tests/fuzz \
		tests/unit/gateway/contract/test_hostile_bodies.py \
		tests/unit/gateway/contract/test_properties.py

lint: $(INSTALLED) ## Style, types, import direction, secrets, vulnerable dependencies
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	git ls-files -z -- ':!gateway/http/assets' ':!tests/e2e/catalog_page/axe' | xargs -0 -n 100 -P 2 $(BIN)/detect-secrets-hook --no-verify
	$(BIN)/python -m checks.dependencies

screenshots: $(INSTALLED) ## Take the pictures of the catalog page anew (docs/images; needs Chromium)
	$(BIN)/python -m checks.screenshots

format: $(INSTALLED) ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

constraints: $(INSTALLED) ## Write what is installed now to constraints.txt
	@{ sed -n '/^#/p' constraints.txt; \
	   $(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' | grep -v ' @ '; } > .constraints.new
	@mv .constraints.new constraints.txt

clean: ## Remove what was built; .venv and the demo's folder too
	rm -rf .venv .demo .modelmux build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*
