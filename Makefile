# make demo: score the bundled traces with the bundled model and look at one.
# make test: run the tests. make lint: what the code must pass besides them.
# Each command makes its own environment; nothing but Python >= 3.10 is needed.
# make test-oldest: the tests with the oldest supported transformers.

PYTHON ?= python3
PIP = bin/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test test-oldest lint clean

demo: .venv/demo
	.venv/bin/segattr demo

test: .venv/test
	.venv/bin/python -m pytest

test-oldest: .venv-oldest/test
	.venv-oldest/bin/python -m pytest

lint: .venv/lint
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

clean:
	rm -rf .venv .venv-oldest

.venv/bin/python .venv-oldest/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python >= 3.10 is needed")'
	$(PYTHON) -m venv $(@D:/bin=)

# One file per set of packages, newer than what decides it.
.venv/demo: .venv/bin/python pyproject.toml constraints.txt
	.venv/$(PIP) --constraint constraints.txt --editable .
	touch $@

.venv/test: .venv/bin/python pyproject.toml constraints.txt
	.venv/$(PIP) --constraint constraints.txt --editable '.[test]'
	touch $@

.venv/lint: .venv/bin/python pyproject.toml constraints.txt
	.venv/$(PIP) --constraint constraints.txt --editable '.[test,lint]'
	touch $@

.venv-oldest/test: .venv-oldest/bin/python pyproject.toml constraints-oldest.txt
	.venv-oldest/$(PIP) --constraint constraints-oldest.txt --editable '.[test]'
	touch $@
