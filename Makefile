# Everything that a contributor runs. `make serve` and `make test` set up what they need on a machine with Python 3.11 and make.
PYTHON ?= python3
VENV   := .venv
# certificates as the system has them: behind a company's own authority, too
export UV_SYSTEM_CERTS ?= 1
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.stamp

.PHONY: setup packages serve test test-ingress check bench bench-packages bench-peers bench-render conformance fuzz clean
setup: $(STAMP)

# uv comes from PyPI into the environment itself, then makes the rest of it exactly as uv.lock says.
$(STAMP): pyproject.toml uv.lock compat/modal/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Portico needs Python 3.11 or newer; try: make PYTHON=python3.12 setup")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv sync --quiet --frozen --inexact --all-extras --compile-bytecode
	@touch $@

# What only apt has: the programs that tests put behind an endpoint and load it with, what judges our unit and what
# changes the time, and the peers of the measurements. Services that come with them are not started: nginx would take port 80.
packages:       PACKAGES := nginx:nginx-light node:nodejs pebble:pebble wrk:wrk strace:strace systemd-analyze:systemd faketime:faketime
bench-packages: PACKAGES := nginx:nginx-light haproxy:haproxy wrk:wrk
packages bench-packages:
	@missing=; PATH="$$PATH:/usr/sbin"; \
	for pair in $(PACKAGES); do command -v $${pair%:*} >/dev/null || missing="$$missing $${pair#*:}"; done; \
	test -n "$$missing" || exit 0; \
	command -v apt-get >/dev/null || { echo "Install by hand:$$missing; there is no apt-get here." >&2; exit 1; }; \
	test "$$(id -u)" = 0 || { echo "Missing:$$missing. Run this as root: make $@" >&2; exit 1; }; \
	policy=/usr/sbin/policy-rc.d; \
	test -e $$policy || { trap "rm -f $$policy" EXIT; printf '#!/bin/sh\nexit 101\n' >$$policy; chmod 755 $$policy; }; \
	apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$missing

serve: setup
	$(BIN)/portico serve examples/quickstart.py

test: setup
	$(BIN)/pytest -n 2

# All that holds with one ingress process holds with more of them.
test-ingress: setup
	TEST_INGRESS=2 $(BIN)/pytest -n 2 tests/e2e

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports

# One measurement that fails does not keep the others from the page; this ends with an error then.
bench: setup bench-packages bench-peers
	@status=0; $(BIN)/python -m bench || status=$$?; \
	test $$status -gt 1 || .venv-bench/bin/python -m bench.render; exit $$status

bench-render: bench-peers
	.venv-bench/bin/python -m bench.render

# what the measurements compare with, and what draws them, in an environment of its own
bench-peers: .venv-bench/.stamp
.venv-bench/.stamp: bench/peers/requirements.txt | $(STAMP)
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-bench
	$(BIN)/uv pip install --quiet --compile-bytecode --python .venv-bench/bin/python -r $<
	@touch $@

# The Autobahn test suite is a program of Python 2.7, which distributions no longer have: pyenv and conda do.
PYTHON2 ?= $(firstword $(wildcard $(HOME)/.pyenv/versions/2.7*/bin/python2.7) python2.7)

conformance: setup .venv-redbot/.stamp .venv-autobahn/.stamp
	$(BIN)/python -m tests.conformance.responses
	set -f; $(BIN)/python -m tests.conformance $(CASES)

.venv-redbot/.stamp: tests/conformance/requirements-redbot.txt | $(STAMP)
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-redbot
	$(BIN)/uv pip install --quiet --python .venv-redbot/bin/python -r $<
	@touch $@

.venv-autobahn/.stamp: tests/conformance/requirements.txt | $(STAMP)
	@$(PYTHON2) -c '' || { echo "Name a Python 2.7, say: make PYTHON2=~/.pyenv/versions/2.7.18/bin/python2.7 conformance" >&2; exit 1; }
	rm -rf .venv-autobahn
	$(BIN)/uv tool run --quiet --from 'virtualenv<20.22' virtualenv --quiet --python "$(PYTHON2)" .venv-autobahn
	.venv-autobahn/bin/pip install --quiet --requirement $<
	@touch $@

# Each target looks for bytes that break a promise; what it finds lies in fuzz-found/, and ends the run.
FUZZ_SECONDS ?= 60
fuzz: setup
	$(BIN)/uv sync --quiet --frozen --inexact --group fuzz
	for target in requests responses frames; do nice $(BIN)/python -m tests.fuzz $$target $(FUZZ_SECONDS) || exit 1; done

clean:
	rm -rf $(VENV) .venv-bench .venv-autobahn .venv-redbot fuzz-found .mypy_cache .ruff_cache .pytest_cache .import_linter_cache dist
