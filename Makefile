# Everything runs in .venv, which `make` creates on first use. `make help` lists the commands.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
CPU ?=
BESIDE := -n 2 --dist worksteal  # two tests at a time

.DEFAULT_GOAL := help
.PHONY: help install run sweep demo tensorboard docs docs-links test test-types test-slow test-thorough test-oldest test-slurm check-install check format clean

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed  ## create .venv and install everything (CPU=1: torch without CUDA)

$(VENV)/.installed: pyproject.toml
	@PYTHON=$(PYTHON) CPU=$(CPU) scripts/install.sh $(VENV)
	@touch $@

run: install  ## the main job: K=15 workers of which 3 lie (more choices: make run ARGS='q=5')
	$(BIN)/byzshield run $(ARGS)

sweep: install  ## three approaches against two attacks, three numbers of liars
	$(BIN)/byzshield run -m approach=mols,detox,baseline attack=alie,reversed_gradient q=0,2,3 $(ARGS)

demo: install  ## five of 25 workers lie: six defences, two seeds, the picture of the README (2 minutes)
	$(BIN)/byzshield run experiment=demo 'seed=range(2)' $(ARGS)
	$(BIN)/byzshield report outputs/demo

tensorboard: install  ## look at the results
	$(BIN)/tensorboard --logdir outputs

docs: install  ## make the site in docs/_build/html; its links among each other are checked
	$(BIN)/python -m pip install --quiet -e '.[docs]'
	$(BIN)/python -m sphinx --quiet --fresh-env --write-all --nitpicky --fail-on-warning --keep-going docs docs/_build/html
	@echo docs/_build/html/index.html

docs-links: docs  ## look at the links of the site to other sites (needs a network)
	$(BIN)/python -m sphinx --quiet --builder linkcheck docs docs/_build/links

test: install  ## the fast tests (some 6 minutes on 2 cores)
	$(BIN)/python -m pytest $(BESIDE) -m 'not slow and not thorough and not slurm' $(ARGS)

test-types: install  ## tests that pass rows about, with types and shapes of all arguments checked
	$(BIN)/python -m pytest $(BESIDE) --jaxtyping-packages=byzshield_exp,beartype.beartype \
	  -m 'not slow and not thorough' tests/votes tests/attacks tests/training/btard $(ARGS)

test-slow: install  ## the tests with many processes or long runs (some 35 minutes)
	$(BIN)/python -m pytest $(BESIDE) -m 'slow and not thorough and not slurm' $(ARGS)

test-thorough: install  ## more of the same, before a release: many faults, long matrices
	$(BIN)/python -m pytest $(BESIDE) -m 'thorough and not slurm' $(ARGS)

test-oldest:  ## the tests with the oldest versions that pyproject.toml allows (6 GB in .venv-oldest)
	scripts/test_oldest.sh .venv-oldest $(ARGS)

SLURM_PACKAGES := slurm-wlm munge slurmdbd mariadb-server

test-slurm: install  ## the tests on a real Slurm (Debian, as root: installs it; skipped elsewhere)
	command -v slurmctld >/dev/null || { apt-get -q update && DEBIAN_FRONTEND=noninteractive \
	  apt-get -q install -y --no-install-recommends $(SLURM_PACKAGES); } || true
	$(BIN)/python -m pytest -m slurm $(ARGS)

check-install:  ## the wheel and the sdist in empty environments of Python 3.11 to 3.13 (6 GB each, one by one)
	scripts/check_install.sh

check: install  ## format, lint, types, import layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install  ## write the format and the lint fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove .venv and caches; results stay
	rm -rf $(VENV) .venv-oldest docs/_build docs/reference .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
