# Everything that a contributor runs. `make serve` and `make test` set up what they need on a machine with Python 3.11 and make.
PYTHON ?= python3
VENV   := .venv
# certificates as the system has them: behind a company's own authority, too
export UV_SYSTEM_CERTS ?= 1
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.stamp

.PHONY: setup packages serve test check bench bench-peers clean
setup: $(STAMP)

# uv comes from PyPI into the environment itself, then makes the rest of it exactly as uv.lock says.
$(STAMP): pyproject.toml uv.lock compat/modal/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Portico needs Python 3.11 or newer; try: make PYTHON=python3.12 setup")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv sync --quiet --frozen --inexact --compile-bytecode
	@touch $@

# The programs that tests put behind an endpoint, and one that changes the time. Services that come with them are not
# started: nginx would take port 80.
packages:
	@missing=; PATH="$$PATH:/usr/sbin"; \
	command -v nginx >/dev/null || missing="nginx-light"; \
	command -v node >/dev/null || missing="$$missing nodejs"; \
	command -v faketime >/dev/null || missing="$$missing faketime"; \
	test -n "$$missing" || exit 0; \
	command -v apt-get >/dev/null || { echo "Install by hand:$$missing; there is no apt-get here." >&2; exit 1; }; \
	test "$$(id -u)" = 0 || { echo "Missing: $$missing. Run this as root: make packages" >&2; exit 1; }; \
	policy=/usr/sbin/policy-rc.d; \
	test -e $$policy || { trap "rm -f $$policy" EXIT; printf '#!/bin/sh\nexit 101\n' >$$policy; chmod 755 $$policy; }; \
	apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$missing

serve: setup
	$(BIN)/portico serve examples/quickstart.py

test: setup
	$(BIN)/pytest -n 2

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports

bench: setup bench-peers
	$(BIN)/python -m bench

# what the measurements compare with, in an environment of its own
bench-peers: .venv-bench/.stamp
.venv-bench/.stamp: bench/peers/requirements.txt | $(STAMP)
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-bench
	$(BIN)/uv pip install --quiet --python .venv-bench/bin/python -r $<
	@touch $@

clean:
	rm -rf $(VENV) .venv-bench .mypy_cache .ruff_cache .pytest_cache .import_linter_cache dist
