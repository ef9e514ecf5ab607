# Short targets; `make demo` and `make test` set everything up by themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# one thread a worker: two workers of two threads each on two cores are many times slower
PYTEST := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

.PHONY: demo test test-all examples test-lowest test-newest wheel-test gpu-check lint format docs clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -U pip
	# torch alone and first: without its pin, pip would fetch gigabytes of GPU libraries
	$(BIN)/python -m pip install -q -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@

demo: $(STAMP)
	$(BIN)/valence compare

test: $(STAMP)
	$(PYTEST)

test-all: $(STAMP)
	$(PYTEST) -m "slow or not slow"

examples: $(STAMP)
	$(PYTEST) --dist load -m "slow or not slow" tests/e2e/test_examples.py

# whether the bounds in pyproject.toml are true, each in an environment of its own
test-lowest:
	PYTHON=$(PYTHON) .ci/test-bounds lowest

test-newest:
	PYTHON=$(PYTHON) .ci/test-bounds newest

# whether what is released installs in a clean environment, and works there
wheel-test:
	PYTHON=$(PYTHON) .ci/wheel-test

# what a GPU must do, in minutes; without one, what needs it is skipped
gpu-check: $(STAMP)
	PYTHONPATH=src $(BIN)/python -m benchmarks.gpu_check --out build/gpu-check

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# offline; warnings are errors
docs: $(STAMP)
	$(BIN)/python -m sphinx -q -E -W --keep-going -b html docs build/docs

clean:
	rm -rf $(VENV) .bounds .pytest_cache .mypy_cache .ruff_cache build dist
