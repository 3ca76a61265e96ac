# make help lists the targets. Everything lives in .venv; a second call installs nothing.

PYTHON ?= python3
# Another package index for torch, e.g. one with CPU or with CUDA builds; empty: what pip is set up with.
TORCH_INDEX ?=
WORKERS ?= 2

BIN := .venv/bin
INSTALL = $(BIN)/python -m pip install --quiet --constraint constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
WANTED := pyproject.toml constraints.txt

.PHONY: help demo test slow lint format wheel clean gpu gpu-wheels

help: ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16
	@echo "variables: PYTHON=python3.12 (3.11 to 3.13), TORCH_INDEX=<url of a package index>, WORKERS=2"

demo: .venv/.installed ## pre-train and fine-tune a tiny model on the sample, then a table of 15 languages
	$(BIN)/python -m xlmrxl_train recipe=demo_pretrain
	$(BIN)/python -m xlmrxl_train recipe=demo model.path=runs/demo_pretrain/seed-1

test: lint ## lint, types and the tests that take seconds
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow"

slow: .venv/.installed-test ## the tests that take minutes
	$(BIN)/python -m pytest -m slow

lint: .venv/.installed-test ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy

format: .venv/.installed-test ## put the code into the project's form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: .venv/.installed-test ## dist/*.whl
	$(BIN)/python -m build --wheel --no-isolation --outdir dist

gpu: ## correctness and speed on a GPU machine without a network (before, elsewhere: make gpu-wheels)
	PYTHON=$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) benchmarks/gpu.sh

gpu-wheels: # the packages that such a machine lacks, into .whl/
	PYTHON=$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) benchmarks/gpu.sh wheels

clean: ## remove .venv, caches and built files; runs/ stays
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps are newer than the files that say what to install.
.venv/.installed: $(WANTED) | .venv/bin/pip
	$(INSTALL) --editable .
	@touch $@

.venv/.installed-test: $(WANTED) | .venv/bin/pip
	$(INSTALL) --editable ".[test]"
	@touch $@ .venv/.installed

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "error: $(PYTHON) must be Python 3.11 to 3.13. Name one: make PYTHON=python3.12 ..."; exit 2; }
	$(PYTHON) -m venv .venv
