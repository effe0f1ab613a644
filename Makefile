# One environment for everything, made from pins (constraints.txt) that name no index.
PYTHON ?= python3.11
VENV   ?= .venv
BIN    := $(VENV)/bin
UV_PIN := uv==0.13.8
# What Python 3.11.0 brings.
OLDEST_PIP := pip==22.3

.PHONY: help env demo test test-fast docs lint format resolve pins wheel clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

env: $(VENV)/.installed  ## create the environment

$(VENV)/.installed: constraints.txt pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check '$(UV_PIN)'
	$(BIN)/uv pip sync --compile-bytecode --python $(BIN)/python constraints.txt
	$(BIN)/uv pip install --python $(BIN)/python --no-deps --no-build-isolation --quiet --editable .
	@touch $@

demo: env  ## the main job: tune, export, serve and query several tasks on one trunk
	$(BIN)/espalier demo

test: env  ## every test
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-fast: env  ## the part of the tests that takes less than a minute
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'not slow' --ignore tests/benchmarks

docs: env  ## the site, into build/docs/site: broken links are errors; words, and sentences that are too long
	$(BIN)/python -m docs.site

lint: env  ## ruff, mypy, and which folder may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy

format: env  ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

resolve:  ## whether the oldest pip finds versions that go together, without going back through them (300 MB, half a minute)
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && $(PYTHON) -m venv "$$folder" && \
	  "$$folder/bin/python" -m pip install --quiet --disable-pip-version-check '$(OLDEST_PIP)' && \
	  timeout 180 "$$folder/bin/python" -m pip install --quiet --disable-pip-version-check --dry-run '.[bench,otel,plot,text]' && \
	  echo "$(OLDEST_PIP) finds versions that go together."

pins:  ## renew constraints.txt (needs uv)
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-annotate --no-header --output-file constraints.txt --upgrade

wheel: env  ## build the wheel into dist/
	$(BIN)/uv build --wheel --no-build-isolation --python $(BIN)/python

clean:  ## remove the environment and what the tools left behind
	rm -rf $(VENV) dist build .import_linter_cache .mypy_cache .ruff_cache .pytest_cache
