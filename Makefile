# Two commands set everything up: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OLDEST := tests/config tests/registry tests/graph tests/store tests/cli tests/training/run/test_online_run.py
QUICK := not slow and not interop and not ray and not jax
export OMP_NUM_THREADS ?= 1

.PHONY: demo test test-quick test-slow mutants test-newest test-oldest test-interop test-ray test-jax check bench pins clean
.PHONY: FORCE

demo: $(STAMP)  ## train CartPole until solved, evaluate it, store it
	$(BIN)/policysmith train cartpole

test: $(STAMP)  ## the tests, on two processes
	$(BIN)/python -m pytest -n 2 -m '$(QUICK)'

test-quick: $(STAMP)  ## the architecture, the laws thinned, the first tests of every file: tests/thinning.py
	$(BIN)/python -m pytest -n 2 -m '$(QUICK)' --quick

mutants: $(STAMP)  ## plant faults in a copy of the package, one by one: each must turn a test red
	$(BIN)/python -m tests.mutants

test-slow: $(STAMP)  ## every test, the minutes-long ones too
	$(BIN)/python -m pytest -n 2 -m 'not interop and not ray and not jax'

test-newest: .venv-newest/.installed  ## the tests with the newest release of everything
	.venv-newest/bin/python -m pytest -n 2 -m '$(QUICK)' --ignore tests/test_pins.py

# An old release rests on newer ones of what it needs itself, whose deprecation warnings are no fault of ours.
test-oldest: .venv-oldest/.installed  ## with the oldest releases that pyproject.toml allows
	.venv-oldest/bin/python -m pytest -n 2 -m '$(QUICK)' -W ignore::DeprecationWarning $(OLDEST)

test-interop: .venv-interop/.installed  ## parity with torchrl
	.venv-interop/bin/python -m pytest -m interop tests/interop

test-ray: .venv-ray/.installed  ## skills trained on a cluster
	.venv-ray/bin/python -m pytest -m ray tests/skills

test-jax: .venv-jax/.installed  ## skills in Craftax-Classic and datasets of Minari, beside JAX
	.venv-jax/bin/python -m pytest -m jax tests/skills tests/training

check: $(STAMP)  ## format, lint, types, architecture
	PATH="$(CURDIR)/$(BIN):$$PATH" scripts/check

bench: $(STAMP)  ## ours beside its peers; writes benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks

pins:  ## the newest releases into constraints.txt and constraints/, after `make test-newest`
	scripts/pin constraints.txt dev
	scripts/pin constraints/interop.txt dev,interop
	scripts/pin constraints/ray.txt dev,ray
	scripts/pin constraints/jax.txt dev,craftax,minari

clean:
	rm -rf $(VENV) .venv-* benchmarks/.venv-sb3 runs .mypy_cache .ruff_cache .pytest_cache

# Environments: a folder, the extras that go into it, and the file that holds their releases.
%/.installed: EXTRAS = dev
%/.installed: PINS = constraints.txt
.venv-newest/.installed: PINS = constraints/torch.txt
.venv-newest/.installed: OPTIONS = --upgrade --upgrade-strategy eager
.venv-oldest/.installed: PINS = .venv-oldest/constraints.txt
.venv-interop/.installed: EXTRAS = dev,interop
.venv-interop/.installed: PINS = constraints/interop.txt
.venv-ray/.installed: EXTRAS = dev,ray
.venv-ray/.installed: PINS = constraints/ray.txt
.venv-jax/.installed: EXTRAS = dev,craftax,minari
.venv-jax/.installed: PINS = constraints/jax.txt

$(STAMP): constraints.txt
.venv-newest/.installed: FORCE
.venv-oldest/.installed: .venv-oldest/constraints.txt
.venv-interop/.installed: constraints/interop.txt
.venv-ray/.installed: constraints/ray.txt
.venv-jax/.installed: constraints/jax.txt

# The variables, unlike `-c`, also hold what pip installs to build the package (newer pips have a second one for that).
%/.installed: pyproject.toml
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	@echo 'Installing into $(@D) takes one or two minutes, the longest of them after "Installing collected packages".'
	PIP_CONSTRAINT=$(PINS) PIP_BUILD_CONSTRAINT=$(PINS) $(@D)/bin/python -m pip install $(OPTIONS) -e '.[$(EXTRAS)]'
	touch $@

.venv-oldest/constraints.txt: pyproject.toml constraints/torch.txt scripts/oldest
	mkdir -p $(@D)
	$(PYTHON) scripts/oldest dev --without torch > $@
	cat constraints/torch.txt >> $@
