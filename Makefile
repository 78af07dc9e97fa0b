# One command each, from nothing: `make demo`, `make test`. Both set up .venv first.
PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: demo moses test quick coverage bench setup lint docs audit sbom release clean

setup: .venv/installed

.venv/installed: pyproject.toml constraints.txt hashes.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=24"
	$(BIN)/python -m pip install --quiet --require-hashes --no-deps --only-binary :all: --requirement hashes.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

# Molecules of a run that comes along, then the whole job on the bundled data: train, sample, evaluate, draw. No network
# after the set-up.
demo: setup
	@rm -rf runs/demo
	$(BIN)/molgen sample druglike -n 10 --valid
	$(BIN)/molgen train moses-mini --out runs/demo
	$(BIN)/molgen sample runs/demo -n 2000 -o runs/demo/samples.smi --grid runs/demo/samples.png
	$(BIN)/molgen eval runs/demo -n 2000 --json runs/demo/eval.json
	@echo
	@echo "the run            runs/demo"
	@echo "2,000 molecules    runs/demo/samples.smi"
	@echo "a picture of 30    runs/demo/samples.png"
	@echo "learning curves    runs/demo/curves.png"
	@echo "figures            runs/demo/eval.json"

# The recipe for one GPU and its figures on both test sets, all that MOSES publishes. A hundredth, to try it on a CPU:
# make moses MOSES="--set data.train_size=15747 --set training.epochs=1 --set training.batch_size=128"
moses: setup
	$(BIN)/molgen train moses --out runs/moses $(MOSES)
	$(BIN)/molgen eval runs/moses -n 30000 --metrics moses --train moses --json runs/moses/eval.json

# Two tests at a time; threads that wait for each other let the other test work meanwhile.
PYTEST := OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n 2 --dist worksteal

test: setup lint
	$(PYTEST) --durations=25

# The same, a tenth slower, with the lines that no test reaches.
coverage: setup
	$(PYTEST) --cov --cov-report=term-missing

# Without the tests that train for more than a few seconds.
quick: setup
	$(PYTEST) -m "not slow"

# Speed and memory beside other programs, for an idle machine. To keep the tables: make bench BENCH="--write docs/benchmarks.md"
bench: setup
	$(BIN)/python scripts/bench/bench.py --json runs/bench.json $(BENCH)

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# The documentation site, into build/site/html: strict, every link checked.
docs: setup
	$(BIN)/python scripts/make/site_pages.py

# Known vulnerabilities of the pinned versions; a list of all that is installed (CycloneDX). Their tools, which molgen
# does not need, have an environment of their own.
audit: .venv-audit/installed
	.venv-audit/bin/pip-audit --strict --requirement constraints.txt --no-deps --disable-pip

sbom: setup .venv-audit/installed
	.venv-audit/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-file sbom.json $(BIN)/python

# What would be uploaded, built and checked, into dist/. It uploads nothing.
release: setup .venv-audit/installed
	$(BIN)/python scripts/make/release.py

.venv-audit/installed: scripts/check/audit-requirements.txt
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip install --quiet --requirement scripts/check/audit-requirements.txt
	touch $@

clean:
	rm -rf .venv .venv-peers .venv-audit sbom.json build dist .*_cache molgen_lm.egg-info
