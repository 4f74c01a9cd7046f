# make lab        the notebooks in JupyterLab (the first time it creates .venv and installs what they need)
# make test       lint, types, layers and all tests
# make quick      lint, types, layers, and the tests without real models, browsers and notebooks: two minutes
# make eslint     lint of the pages' JavaScript, where there are npx and the network
# make test-cuda  every lab on a CUDA device that is not there; its algorithms are in make test
# make calibration  how often the truth lies within two standard errors of what is shown with some
# make claims     how near PPO, TRPO and REINFORCE come to the exact optimum, over ten seeds
# make mutants    would the tests notice? 400 one-line faults in the package, one after the other; an hour or so
# make clean      caches and .venv's stamps; .venv and runs/ stay
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
NEEDS := pyproject.toml constraints.txt
ESLINT := npx --yes --fetch-retries=0 --fetch-timeout=30000 eslint@9.39.1

.PHONY: lab test quick eslint test-cuda calibration claims mutants clean

lab: $(VENV)/.lab
	$(BIN)/rlhflab lab

UNIT := $(addprefix tests/,objectives core checks explore worlds data tasks plots runs mutants test_structure.py \
	test_boundary.py test_docstrings.py test_oom.py test_remedies.py test_widget.py test_cli_sweep.py)

quick: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy rlhflab
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist worksteal $(UNIT)

test: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy rlhflab
	$(BIN)/lint-imports
	@$(MAKE) --no-print-directory eslint
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal --ignore tests/browser
	$(BIN)/python -m pytest tests/browser

eslint:
	@if ! command -v npx > /dev/null; then echo "eslint skipped: npx is not installed (apt install npm)"; \
	elif ! $(ESLINT) --version > /dev/null 2>&1; then echo "eslint skipped: npx cannot fetch $(lastword $(ESLINT))"; \
	else $(ESLINT) rlhflab && echo "eslint: no finding"; fi

test-cuda: $(VENV)/.test
	$(BIN)/python -m tests.cuda.labs

calibration: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.calibration

claims: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.convergence

mutants: $(VENV)/.mutants
	$(BIN)/python -m tests.mutants.run

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "rlhflab needs Python 3.11 or newer; try: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "On Debian and Ubuntu: apt install python3-venv"; exit 1; }

# torch first, by itself, so that nothing else chooses its version.
$(VENV)/.torch: constraints.txt | $(BIN)/python
	$(PIP) torch==2.13.0
	@touch $@

$(VENV)/.lab: $(NEEDS) $(VENV)/.torch
	$(PIP) -e '.[lab]'
	@touch $@

$(VENV)/.test: $(NEEDS) $(VENV)/.torch
	$(PIP) -e '.[test]'
	@touch $@

$(VENV)/.mutants: $(NEEDS) $(VENV)/.torch
	$(PIP) -e '.[test,mutants]'
	@touch $@

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	rm -f $(VENV)/.torch $(VENV)/.lab $(VENV)/.test $(VENV)/.mutants
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +
