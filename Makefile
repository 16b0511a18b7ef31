# make demo: score the bundled traces with the bundled model and look at one.
# make test: run the tests. make lint: what the code must pass besides them.
# Each command makes its own environment; nothing but Python >= 3.10 is needed.
# make test-oldest: the tests with the oldest supported transformers.
# make bench: measure every engine against its peers; benchmarks/README.md is the result.

PYTHON ?= python3
RESULTS = $(shell .venv/bin/python -c "import torch; print('gpu' if torch.cuda.is_available() else 'cpu')")
BENCH = --override-ini addopts= --override-ini filterwarnings=default --quiet
PIP = bin/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test test-oldest lint bench evidence clean

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

# On a GPU, benchmarks/gpu_check.sh measures more in less time.
bench: .venv/test
	.venv/bin/python -m pytest tests/test_reference.py tests/test_triton_ops.py tests/test_fused.py
	.venv/bin/python -m pytest benchmarks/bench_engines.py --results=benchmarks/results/$(RESULTS).json $(BENCH)
	.venv/bin/python -m pytest benchmarks/bench_ops.py --results=benchmarks/results/$(RESULTS)-ops.json $(BENCH)
	.venv/bin/python -m pytest benchmarks/bench_rules.py --results=benchmarks/results/$(RESULTS)-rules.json $(BENCH)
	.venv/bin/python benchmarks/table.py

# How many path points are enough: every rule on 16 kinds of path. An hour on 2 cores.
evidence: .venv/test
	.venv/bin/python benchmarks/quadrature.py --only "bundled, pad"
	.venv/bin/python benchmarks/quadrature.py --only "bundled, zero" \
	  --results benchmarks/results/quadrature-zero.json
	.venv/bin/python benchmarks/quadrature.py --only random \
	  --results benchmarks/results/quadrature-random.json
	.venv/bin/python benchmarks/table.py

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
