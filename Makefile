# Every path here is relative and quoted: the checkout may lie in a folder with spaces.
# Written for GNU make 3.81 (macOS) and later.

SHELL := /bin/sh
VENV_PYTHON := .venv/bin/python
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup fit test campaign lint bench bench-peers clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile
	@echo 'ARGS="..." is passed on by fit, test, campaign, bench-peers and the first of bench; PYTHON=... names the interpreter for setup.'

# Any Python from 3.7 on can start the script, which then looks for one that the project allows.
setup: ## Make or mend .venv with the project and every extra, exact by constraints.txt
	@for python in "$${PYTHON:-python3}" python3 python python3.13 python3.12 python3.11; do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 7))' >/dev/null 2>&1; then \
	    exec "$$python" .ci/setup.py; \
	  fi; \
	done; \
	echo 'setup: Waggle needs Python 3.11 to 3.13, and no Python was found on the PATH.' >&2; exit 2

fit: setup ## Train the demo on the built-in pictures (ARGS="--trainer.max_epochs 2")
	@$(VENV_PYTHON) -m src.train fit --config configs/demo.yaml $(ARGS)

test: setup ## Run the tests, on up to four cores (ARGS="-k bundle -x")
	@$(VENV_PYTHON) -m pytest -n logical --maxprocesses 4 --dist worksteal $(ARGS)

campaign: setup ## The long searches for faults: kills, breaks, damage of more kinds
	@$(VENV_PYTHON) -m pytest -m campaign $(ARGS)

lint: setup ## Check style, format, types, and packages for known faults
	@$(VENV_PYTHON) -m ruff check .
	@$(VENV_PYTHON) -m ruff format --check .
	@$(VENV_PYTHON) -m mypy --strict
	@$(VENV_PYTHON) .ci/known_faults.py

bench: setup ## Measure how fast a training is here, and what exactness costs
	@$(VENV_PYTHON) -m src.bench $(ARGS)
	@$(VENV_PYTHON) -m tests.benchmarks.exactness_cost

bench-peers: setup ## Measure against Keras, fastai and torch with PIL (ARGS="--root DATA"); takes hours
	@$(VENV_PYTHON) -m tests.benchmarks.peers $(ARGS)

clean: ## Remove the environment and every cache; runs and data stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .schemathesis build waggle.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
