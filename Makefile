# Every target sets up what it needs: a virtual environment in .venv, from the hash-pinned lock.
PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
READY := .venv/.ready
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format bench quality docs pictures peers lock clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

setup: $(READY)  ## install everything into .venv

demo: $(READY)  ## train, export, serve and search, on real photographs (ARGS=--exit to end after the tour)
	$(BIN)/rankone demo $(ARGS)

test: $(READY)  ## run the tests, in as many processes as there are cores, at most four
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile $(ARGS)

check: $(READY)  ## lint, format and types, as CI does
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)  ## fix what the linter and formatter can fix
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: $(READY)  ## measure speed, as ratios against named rivals (ARGS="head sketch" for some)
	$(BIN)/rankone bench $(ARGS)

quality: peers  ## measure fine-tuning and short embeddings, with learned filters on downloaded pictures (two hours)
	$(BIN)/rankone bench fine-tuning short

docs: $(READY)  ## build the pages of docs/ as a site in build/site, with a reference made from the code
	$(BIN)/python docs/site/build.py

pictures: peers  ## make the pictures of docs/: the page in Chromium with the demo's bundle, and the concepts
	$(BIN)/python -m tests.page_pictures
	$(BIN)/python -m benchmarks.concepts

peers: $(READY)  ## add the other services that `make bench` measures against
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r requirements-peers.lock

# Of the peers one wants onnxruntime, whose files would take the place of onnxruntime-gpu's.
lock: $(READY)  ## renew all locks from pyproject.toml: of this environment, of uv, of the peers, of the images
	$(COMPILE) --upgrade --extra dev pyproject.toml --output-file requirements.lock
	grep '^uv==' requirements.lock | tr -d ' \\' | $(COMPILE) --no-annotate - --output-file requirements-uv.lock
	sed -E 's/ \\$$//; /--hash/d; /^ *#/d' requirements.lock >.constraints
	echo onnxruntime >.excludes
	$(COMPILE) --upgrade --no-annotate --constraints .constraints --excludes .excludes --group pyproject.toml:peers \
		--output-file requirements-peers.lock
	rm .constraints .excludes
	$(MAKE) --always-make docker/requirements-gpu.lock docker/requirements-cpu.lock

# The images install the versions that are tested. The builds for CPUs are other packages, held at the same versions.
docker/requirements-gpu.lock:
	$(COMPILE) --constraint requirements.lock --extra gpu --extra train --extra parquet --extra postgres --extra tensorboard --extra traces \
		pyproject.toml --output-file $@

docker/requirements-cpu.lock:
	sed -nE 's/^onnxruntime-gpu(==[^ ]+).*/onnxruntime\1/p; s/^faiss-gpu(==[^ ]+).*/faiss-cpu\1/p' requirements.lock | \
		$(COMPILE) --constraint requirements.lock --extra cpu --extra openvino --extra postgres --extra traces pyproject.toml - --output-file $@

clean:  ## remove the environment, the demo's data and run, and caches
	rm -rf .venv build data/photos runs/demo .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# uv comes first, from a lock of its own; it then installs the rest, faster than pip and as strictly.
$(READY): requirements.lock requirements-uv.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "rankone needs Python 3.11 or newer (make PYTHON=…)")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.lock
	$(BIN)/uv pip sync --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $(READY)
