# Two commands set everything up: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export OMP_NUM_THREADS ?= 1

.PHONY: demo test test-slow test-interop test-ray test-jax check bench clean

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@

demo: $(STAMP)  ## train CartPole until solved, evaluate it, store it
	$(BIN)/policysmith train cartpole

test: $(STAMP)  ## the tests, on two processes
	$(BIN)/python -m pytest -n 2 -m 'not slow and not interop and not ray and not jax'

test-slow: $(STAMP)  ## every test, the minutes-long ones too
	$(BIN)/python -m pytest -n 2 -m 'not interop and not ray and not jax'

test-interop:  ## parity with torchrl, in an environment of its own
	test -x .venv-interop/bin/python || $(PYTHON) -m venv .venv-interop
	.venv-interop/bin/python -m pip install -q -c constraints.txt -e '.[dev,interop]'
	.venv-interop/bin/python -m pytest -m interop

test-ray:  ## skills trained on a cluster, in an environment of its own
	test -x .venv-ray/bin/python || $(PYTHON) -m venv .venv-ray
	.venv-ray/bin/python -m pip install -q -c constraints.txt -e '.[dev,ray]'
	.venv-ray/bin/python -m pytest -m ray tests/skills

test-jax:  ## skills in Craftax-Classic and datasets of Minari, in an environment that has JAX
	test -x .venv-jax/bin/python || $(PYTHON) -m venv .venv-jax
	.venv-jax/bin/python -m pip install -q -c constraints.txt -e '.[dev,craftax,minari]'
	.venv-jax/bin/python -m pytest -m jax

check: $(STAMP)  ## format, lint, types, architecture
	PATH="$(CURDIR)/$(BIN):$$PATH" scripts/check

bench: $(STAMP)  ## ours beside its peers; writes benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) .venv-interop .venv-ray .venv-jax benchmarks/.venv-sb3 runs .mypy_cache .ruff_cache .pytest_cache
