# Short targets; `make demo` and `make test` set everything up by themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# one thread a worker: two workers of two threads each on two cores are many times slower
PYTEST := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

.PHONY: demo test test-all examples test-lowest test-newest wheel-test release image lock gpu-check lint \
	format docs clean

# requirements-dev.txt holds hashes for Linux on x86-64 and CPython 3.11 alone
LOCKED ?= $(shell $(PYTHON) -c "import platform as p; print(\
	'yes' if (p.system(), p.machine(), p.python_version_tuple()[:2]) == ('Linux', 'x86_64', ('3', '11')) else 'no')")
# torch's CPU wheel has an index of its own; where wheels lie on the disk, none is needed
TORCH := $(if $(PIP_FIND_LINKS),,--extra-index-url https://download.pytorch.org/whl/cpu)

$(STAMP): pyproject.toml requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -U pip
ifeq ($(LOCKED),yes)
	$(BIN)/python -m pip install -q --require-hashes $(TORCH) -r requirements-dev.txt
	$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
else
	$(BIN)/python -m pip install -q $(TORCH) -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
endif
	touch $@

demo: $(STAMP)
	$(BIN)/valence fit demo --out build/demo/model --budget 30s
	$(BIN)/valence compare

test: $(STAMP)
	$(PYTEST) --durations=25

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

# what is released, and a list of all that is in it (CycloneDX), in dist/
release: $(STAMP)
	PYTHON=$(PYTHON) .ci/release

# the image of the server, on a base named by digest; needs docker
image:
	.ci/image

# the requirements anew, with hashes; UPGRADE=--upgrade takes the newest versions
lock:
	PYTHON=$(PYTHON) .ci/lock $(UPGRADE)

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
