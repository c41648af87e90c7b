# The entry points for people and for CI. `make` alone lists them.

PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
READY   = $(VENV)/.ready
PEERS   = .venv-peers

.DEFAULT_GOAL := help
.PHONY: help setup demo test soak lint serve bench bench-quick clean

help:
	@echo "make demo    train, export, verify, serve and query on built-in data (minutes, CPU)"
	@echo "make test    the whole test suite"
	@echo "make soak    its long tests of the service in full: load, kills, disconnects, fuzzing, and slow benchmarks (half an hour or more)"
	@echo "make lint    ruff and mypy"
	@echo "make serve   serve the bundles that make demo wrote"
	@echo "make bench   the service beside its peers and past its capacity (hours), results in docs/benchmarks.md"

setup: $(READY)

$(READY): pyproject.toml constraints.txt tools/system-packages
	sh tools/system-packages $(PYTHON)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

demo: $(READY)
	$(BIN)/isolatent quickstart --out demo

# Those that measure time, or that run jobs, which give way to everything else, have the machine to themselves.
ALONE = tests/benchmarks tests/serve/jobs tests/soak

test: $(READY)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(ALONE:%=--ignore=%)
	$(BIN)/python -m pytest $(ALONE)

soak: $(READY)
	ISOLATENT_SOAK=1 $(BIN)/python -m pytest -s --timeout 7200 \
		tests/soak tests/serve/test_slow_senders.py tests/serve/test_hostile_files.py \
		tests/train/test_features.py tests/benchmarks

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

serve: $(READY)
	@test -d demo/bundles || { echo "no bundles yet; run: make demo" >&2; exit 1; }
	$(BIN)/isolatent serve demo/bundles/*

bench: $(READY) $(PEERS)/.ready
	$(BIN)/python benchmarks/serving.py
	$(BIN)/python benchmarks/overload.py

bench-quick: $(READY) $(PEERS)/.ready
	$(BIN)/python benchmarks/serving.py --quick
	$(BIN)/python benchmarks/overload.py --quick

# The peers in an environment of their own: what they depend on never touches ours. TorchServe needs Java 17.
$(PEERS)/.ready: benchmarks/requirements-peers.txt
	@command -v wrk >/dev/null || { echo "wrk is missing; run: apt-get install wrk" >&2; exit 1; }
	@command -v java >/dev/null || { echo "java is missing; run: apt-get install openjdk-17-jre-headless" >&2; exit 1; }
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

clean:
	rm -rf $(VENV) $(PEERS) demo
