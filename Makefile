# `make demo` and `make test` are all a newcomer needs. Both make the environment first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Tests share the cores: processes of one thread, one more than cores, as many tests wait.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(min(8, (os.cpu_count() or 1) + 1))')

.PHONY: help demo test fuzz lint types contracts check bench-overhead bench-polling bench-reporting bench-checkpoints bench-hinton bench-methods bench-speed bench-load chaos docs audit lock clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Stillhouse needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Say which to use: make PYTHON=python3.11 …")'
	@echo "Making the environment in $(VENV) (torch is large: a few minutes the first time) …"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(VENV)/.installed  ## run a real distillation through the service and check its student
	@$(BIN)/python examples/demo.py

test: $(VENV)/.installed  ## run every test (STILLHOUSE_TEST_DATABASES=both: those of whole services on each database)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup

fuzz: $(VENV)/.installed  ## every hostile file to a live service, schemathesis and hypothesis for long (an hour)
	STILLHOUSE_FUZZ=large $(BIN)/python -m pytest tests/hostile tests/ingest/test_fuzz.py tests/distill/test_data_fuzz.py tests/distill/teachers/test_fuzz.py

lint: $(VENV)/.installed  ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed  ## static types
	$(BIN)/mypy

contracts: $(VENV)/.installed  ## which package may import which
	$(BIN)/lint-imports

check: lint types contracts  ## all three

bench-overhead: $(VENV)/.installed  ## the service against a plain script; submit to first step
	$(BIN)/python -m benchmarks.overhead

bench-polling: $(VENV)/.installed  ## GET /v1/jobs/{id} against a bare Starlette route
	$(BIN)/python -m benchmarks.polling

bench-speed: $(VENV)/.installed  ## the engine against the textbook and torchdistill; its memory; bf16 (needs npm)
	$(BIN)/python -m benchmarks.speed

bench-reporting: $(VENV)/.installed  ## cost of reporting per training step
	$(BIN)/python -m benchmarks.reporting

bench-checkpoints: $(VENV)/.installed  ## cost of checkpoints as a share of training
	$(BIN)/python -m benchmarks.checkpoints

bench-hinton: $(VENV)/.installed  ## section 3 of Hinton et al. 2015 on the full MNIST (needs npm, an hour)
	$(BIN)/python -m benchmarks.hinton

bench-methods: $(VENV)/.installed  ## every distillation method against kd and the student alone (needs npm, half an hour)
	$(BIN)/python -m benchmarks.methods

bench-load: $(VENV)/.installed  ## 500 pollers and 50 event streams while two jobs train
	$(BIN)/python -m benchmarks.load

chaos: $(VENV)/.installed  ## kill, freeze, starve and flood a running service, and print what came of its jobs
	$(BIN)/python -m benchmarks.chaos

docs: $(VENV)/.installed  ## write docs/reference.md and docs/openapi.json
	$(BIN)/python -m docs.generate
	$(BIN)/python -m api.openapi docs/openapi.json

audit:  ## ask the advisory database about the pinned versions (needs a network)
	$(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/bin/python -m pip install --quiet pip-audit
	$(VENV)-audit/bin/pip-audit --no-deps --disable-pip -r constraints.txt

lock: $(VENV)/.installed  ## write constraints.txt from the environment
	$(BIN)/python -m pip freeze --all --exclude pip --exclude-editable > constraints.txt

clean:  ## remove what make made
	rm -rf $(VENV) $(VENV)-audit .demo build *.egg-info
