# Everything runs in .venv with the versions of constraints.txt. `make demo` first.
PYTHON ?= python3
BIN := .venv/bin
WORKERS ?= auto
OUT ?= runs/demo-$(shell date +%Y%m%d-%H%M%S)

.PHONY: install dev demo test check bench

install: .venv/installed
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt -e .
	touch $@

dev: .venv/dev
.venv/dev: .venv/installed
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

demo: install
	$(BIN)/cardigan train mnist --minutes 3 --out $(OUT)
	@echo "The images are in $(OUT)/samples/"

# Tests that measure the machine run alone first. The others share the cores, one thread per worker.
test: dev
	$(BIN)/python -m pytest -m alone
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not alone' --numprocesses $(WORKERS) --maxprocesses 8 --dist loadfile

check: dev
	$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/python -m pytest tests/test_architecture.py

bench: dev
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/recipe_scores.py --recipe mnist --minutes 2 --out runs/scores-$(shell date +%Y%m%d-%H%M%S)
