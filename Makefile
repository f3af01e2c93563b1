# `make demo` and `make test` start from python3, make and a package index: they build a virtual environment in .venv,
# with the tested versions of constraints.txt, and use it. pip's own settings (PIP_INDEX_URL and others) are honoured.

PYTHON ?= python3
VENV ?= .venv
# Extra arguments for pytest: make test ARGS="-m slow -x"
ARGS ?=
# Tests run side by side, each on one thread: most of them are too small to share.
WORKERS ?= auto

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -q -c constraints.txt
BASE := $(VENV)/.installed-base
DEV := $(VENV)/.installed-dev
DOCS := $(VENV)/.installed-docs

export OMP_WAIT_POLICY := PASSIVE
export PIP_DISABLE_PIP_VERSION_CHECK := 1

COMPARED := ddim,dpmpp_2m,unipc_2,adams4,adaptive

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test lint docs clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile

demo: $(BASE) ## sample 80 images with the bundled model and compare five solvers, into demo/ and demo-study/
	$(BIN)/ddim-ode sample fashion --method ddim --nfe 50 --label each -n 80 --out demo --overwrite
	rm -rf demo-study
	$(BIN)/ddim-ode compare fashion --methods $(COMPARED) --nfe 5,10,20 -n 16 --reference-tol 0.003 --out demo-study
	@echo "The pictures are in $(CURDIR)/demo, the comparison is $(CURDIR)/demo-study/report.html"

test: $(DEV) ## run the tests (ARGS="..." goes to pytest)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 8 $(ARGS)

lint: $(DEV) ## ruff check, ruff format --check, mypy
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check
	$(BIN)/python -m mypy

docs: $(DOCS) ## build the documentation as a site, into site/; a broken link or an undocumented name is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "The documentation is $(CURDIR)/site/index.html"

clean: ## remove demo/, demo-study/, site/, built packages and caches; .venv stays (rm -rf .venv to start over)
	rm -rf demo demo-study site build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find $(wildcard ddim_ode tests benchmarks docs examples) -name __pycache__ -type d -prune -exec rm -rf {} +

# torch goes first, alone: it is most of the download. The pin has no local suffix, so a CPU build is taken where offered.
define install
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "ddim_ode needs Python 3.10 or newer; try make PYTHON=python3.11")'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { echo "Creating $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "Installing torch (the first time takes a while)"
	@$(PIP) torch
	@echo "Installing ddim_ode and $(1)"
	@$(PIP) -e "$(2)"
endef

$(BASE): pyproject.toml constraints.txt
	$(call install,what it needs,.)
	@touch $@

$(DEV): pyproject.toml constraints.txt
	$(call install,what its tests need,.[dev])
	@touch $(BASE) $(DOCS) $@

$(DOCS): pyproject.toml constraints.txt
	$(call install,what its documentation needs,.[docs])
	@touch $(BASE) $@
