# Each target does its own set-up, once, and is quick when nothing changed: a stamp says what is installed.
#   PYTHON  the Python to build the environment with (default: the newest of 3.13, 3.12, 3.11 that runs)
#   VENV    the environment's folder (default .venv)
#   ARGS    further arguments of `make serve`, `make bench`, `make coverage`, `make lock-engines`;  PYTEST_ARGS  those of pytest

VENV ?= .venv
PYTHON ?=
ARGS ?=
PYTEST_ARGS ?= -n auto

BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
# Everything comes from the locks: nothing is resolved, and nothing unlisted is fetched to build it.
PIP_INSTALL := tools/pip-install $(BIN)/python

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help serve test coverage test-packages check bench docs lock lock-engines clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' Makefile

# The engines come beside it, for kinds that need one. In a subshell, so that they are no child of the runtime's.
serve: $(STAMPS)/runtime $(STAMPS)/sandbox ## set up and start the runtime; Ctrl-C stops it
	@[ -e $(STAMPS)/engines ] || ( tools/engines-beside $(BIN) $$$$ $(STAMPS)/engines & ); \
	exec $(BIN)/mhnos-runtime serve $(ARGS)

test: check $(STAMPS)/sandbox ## everything that has to hold: the static checks and all tests
	$(BIN)/python -m pytest $(PYTEST_ARGS)

coverage: check $(STAMPS)/sandbox ## the same, measured: no module below its floor (ARGS=--record writes the floors anew)
	$(BIN)/python -m tests.coverage $(ARGS) $(PYTEST_ARGS)

# Two at a time: the engine and the machine wait for registries and disks for the most part.
test-packages: $(STAMPS)/packages ## wheel, image and service on a real engine and a booted Debian (root, some 10 minutes)
	@tools/install-programs debootstrap systemd-container docker.io shellcheck iproute2 procps openssl pipx
	MHNOS_TEST_PACKAGES=1 $(BIN)/python -m pytest -n 2 tests/packages $(ARGS)

check: $(STAMPS)/dev ## the quick, static part: style, types, import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: $(STAMPS)/runtime ## measure, each figure beside its peer
	@if [ -x benchmarks/setup.sh ]; then PYTHON=$(abspath $(BIN)/python) benchmarks/setup.sh; fi
	$(BIN)/python -m benchmarks $(ARGS)

docs: $(STAMPS)/runtime ## regenerate the generated part of docs/
	@$(BIN)/python -m mhnos_runtime.wire.schema > docs/protocol.schema.json.new
	@mv docs/protocol.schema.json.new docs/protocol.schema.json
	@$(BIN)/python tools/describe-api > docs/openapi.json.new
	@mv docs/openapi.json.new docs/openapi.json

# A virtual environment is made again when its Python is gone, as after an upgrade of the system.
ifneq ($(shell test -x $(BIN)/python && echo there),there)
.PHONY: $(STAMPS)/venv
endif

$(STAMPS)/venv:
	@python=$$(PYTHON='$(PYTHON)' tools/find-python) || exit 1; \
	echo "Setting up $(VENV) with $$python (once)"; \
	"$$python" -m venv --clear $(VENV) && mkdir -p $(STAMPS) && touch $@

$(STAMPS)/runtime: $(STAMPS)/venv requirements/build.txt requirements/runtime.txt pyproject.toml
	@echo "Installing what the runtime needs (once)"
	@$(PIP_INSTALL) --require-hashes -r requirements/build.txt -r requirements/runtime.txt
	@$(PIP_INSTALL) --editable .
	@touch $@

# What the sandbox level strict is made with; without it the runtime says so and does not start.
$(STAMPS)/sandbox: $(STAMPS)/venv
	@tools/install-programs bubblewrap libseccomp2
	@! command -v bwrap >/dev/null || touch $@

$(STAMPS)/dev: $(STAMPS)/runtime requirements/dev.txt
	@echo "Installing what tests and checks need (once)"
	@$(PIP_INSTALL) --require-hashes -r requirements/dev.txt
	@touch $@

$(STAMPS)/packages: $(STAMPS)/dev requirements/packages.txt
	@$(PIP_INSTALL) --require-hashes -r requirements/packages.txt
	@touch $@

# One lock for all supported Pythons. The later ones follow the earlier ones, since they share an environment.
LOCK := $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --quiet $(LOCK_ARGS)
lock: $(STAMPS)/dev ## resolve requirements/ anew from pyproject.toml (LOCK_ARGS=--upgrade for newer versions)
	@$(PIP_INSTALL) --require-hashes -r requirements/lock.txt
	$(LOCK) --extra node -o requirements/runtime.txt pyproject.toml
	$(LOCK) --group build -c requirements/runtime.txt -o requirements/build.txt
	$(LOCK) --group dev -c requirements/runtime.txt -c requirements/build.txt -o requirements/dev.txt
	$(LOCK) --group packages -o requirements/packages.txt
	$(LOCK) --group lock -o requirements/lock.txt

lock-engines: $(STAMPS)/runtime ## resolve the engines' locks anew (ARGS="workerd=1.20260101.0" for other versions)
	$(BIN)/python tools/lock-engines $(ARGS)

clean: ## remove everything that the other targets made
	rm -rf .venv .venv-* $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
