# Everything runs in .venv with the versions of constraints.txt. `make demo` first.
PYTHON ?= python3
BIN := .venv/bin
WORKERS ?= auto
OUT ?= runs/demo-$(shell date +%Y%m%d-%H%M%S)

.PHONY: install dev demo test check bench docs dist test-dist test-oldest

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

# The documentation site, in build/site. Strict: a dead link or an unknown name ends it.
docs: dev
	$(BIN)/python docs/site/build_site.py

# A wheel and an sdist, each installed in an empty environment and used there.
dist: dev
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m build --outdir dist packages/starters

test-dist: dist
	$(BIN)/python tests/release/smoke.py dist/cardigan-*.whl --constraints constraints.txt
	$(BIN)/python tests/release/smoke.py dist/cardigan-[0-9]*.tar.gz --constraints constraints.txt

# The oldest versions that pyproject.toml allows.
test-oldest:
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/pip install --quiet -c constraints-oldest.txt -e '.[features]' \
		pytest pytest-xdist beartype scipy hypothesis pyyaml huggingface_hub
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest -m 'not alone' tests/nets tests/objective tests/training tests/models tests/run
