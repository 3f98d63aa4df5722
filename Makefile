# Every target sets up .venv first, and again when pyproject.toml or constraints.txt has changed.
#   make demo     watch contexts being served, from end to end; ends by itself
#   make up       serve, until Ctrl-C
#   make test     all tests          make check    formatting, lint, types, import rules
#   make bench    measure

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
EXTRAS := rwkv,metrics,dev

.PHONY: demo up test check bench setup clean
.DEFAULT_GOAL := demo

demo: $(STAMP)
	@$(BIN)/python -P -m demo

up: $(STAMP)
	@$(BIN)/ssmprov up

test: $(STAMP)
	$(BIN)/python -P -m pytest $(ARGS)

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)
	@$(BIN)/python -P -m benchmarks $(ARGS)

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "ssmprov needs Python 3.11 or newer, and '$(PYTHON)' is not: try make PYTHON=python3.11" >&2; exit 1; }
	@echo "setting up $(VENV) (torch is large: this takes a while the first time)" >&2
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

clean:
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
