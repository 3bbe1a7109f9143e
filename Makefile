# Set-up needs Python 3.11 to 3.13, git and make; everything else is fetched into .venv.
PYTHON ?= python3
BIN := .venv/bin
LABEL_STUDIO ?= 1

.PHONY: setup label-studio demo test check format bench lock clean

setup: .venv/.ready

.venv/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	  || { echo "Readloop needs Python 3.11, 3.12 or 3.13: make setup PYTHON=python3.12"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	$(BIN)/python -m compileall -q app connectors ssl_core
	@touch $@

# The server's own environment, outside this one; `readloop label-studio up` makes it when missing.
label-studio: setup
	@$(BIN)/python -c 'from connectors.label_studio.server import install; print(install(print))'

# The main job end to end on the shipped sample: three simulated rounds beside a random control,
# then a batch that waits to be read. LABEL_STUDIO=0 leaves the reading room out.
demo: setup
	$(BIN)/python -m app.demo $(if $(filter 0,$(LABEL_STUDIO)),--no-label-studio)

test: setup
	$(BIN)/python -m pytest -n auto

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) test

bench: setup
	$(BIN)/readloop bench augment

# Exact versions and hashes, no addresses. The Label Studio server has an environment of its own.
COMPILE := $(BIN)/uv pip compile --universal --generate-hashes --python-version 3.11 --quiet \
	  --no-header --no-annotate --no-emit-index-url --no-emit-find-links
lock:
	$(COMPILE) --group dev pyproject.toml -o requirements.lock
	printf '%s\n' label-studio==1.23.2 label-studio-sdk==2.1.2 \
	  | $(COMPILE) - -o connectors/label_studio/server.lock

clean:
	rm -rf demo .mypy_cache .ruff_cache .pytest_cache .hypothesis
