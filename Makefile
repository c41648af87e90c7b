# The entry points for people and for CI. `make` alone lists them.

PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
READY   = $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint serve bench clean

help:
	@echo "make demo    train, export, verify, serve and query on built-in data (minutes, CPU)"
	@echo "make test    the whole test suite"
	@echo "make lint    ruff and mypy"
	@echo "make serve   serve the bundles that make demo wrote"
	@echo "make bench   side-by-side measurements, results under benchmarks/results/"

setup: $(READY)

$(READY): pyproject.toml constraints.txt tools/system-packages
	sh tools/system-packages $(PYTHON)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

demo: $(READY)
	$(BIN)/isolatent quickstart --out demo

test: $(READY)
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

serve: $(READY)
	@test -d demo/bundles || { echo "no bundles yet; run: make demo" >&2; exit 1; }
	$(BIN)/isolatent serve demo/bundles/*

bench: $(READY)
	$(BIN)/python benchmarks/serving.py

clean:
	rm -rf $(VENV) demo
