# Two commands for a new machine: `make repro` runs the pipeline on the built-in sample, `make test` tests the code.
# Everything runs in .venv, made here from requirements.lock; a changed lock makes it anew.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

VENV := .venv
# a copy of the lock, put there last: an environment without it, or with another one, is not finished
INSTALLED := $(VENV)/installed.lock
LOCK ?= requirements.lock
REMOTE ?= sample
PORT ?= 5000
# of the tests; each takes some 2 GB of memory
JOBS ?= 2

# the stages in dvc.yaml call `python`, and DVC takes the first one on PATH
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV
# TensorFlow's start-up notices say nothing to a user; Great Expectations must not call home
export TF_CPP_MIN_LOG_LEVEL ?= 3
export GX_ANALYTICS_ENABLED ?= False

.PHONY: help
help:  ## List the commands
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/make \1\t\2/p' Makefile | column -t -s $$'\t'

.PHONY: repro
repro: env data  ## Run the pipeline: only what changed; ends with a table of the results
	@dvc repro
	@python -m pipelines summary

.PHONY: test
test: env  ## Run the whole test suite, in JOBS processes (2)
	@python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

.PHONY: ui
ui: env  ## Show the runs, curves, pictures and registered models in MLflow's page
	@uri="$${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db}"; \
	case "$$uri" in \
	  http*) echo "MLflow: $$uri" ;; \
	  *) echo "MLflow: http://127.0.0.1:$(PORT)  (Ctrl-C ends it)"; \
	     exec mlflow ui --backend-store-uri "$$uri" --host 127.0.0.1 --port $(PORT) --workers 1 ;; \
	esac

.PHONY: lint
lint: env  ## Check style, format, types, and which package may import which
	ruff check
	ruff format --check
	mypy
	lint-imports

.PHONY: lock
lock: env  ## Compile both locks anew from pyproject.toml
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  pyproject.toml --extra cpu --extra server --extra dev -o requirements.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  pyproject.toml --extra gpu -o requirements-gpu.lock

.PHONY: env
env:  ## Create .venv from requirements.lock, unless it is there (LOCK=requirements-gpu.lock for CUDA)
	@cmp -s $(LOCK) $(INSTALLED) || $(MAKE) --no-print-directory fresh-env

.PHONY: fresh-env
fresh-env:
	@python=$$(for name in python3 python3.12 python3.11; do \
	    "$$name" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null \
	      && command -v "$$name" && break; \
	  done) || { echo "error: no Python 3.11 or 3.12 with its venv module; install one (Debian, Ubuntu: python3-venv)" >&2; exit 2; }; \
	echo "Making the environment in $(VENV) from $(LOCK): some minutes the first time, almost 3 GB"; \
	rm -rf $(VENV); \
	"$$python" -m venv $(VENV)
	@awk '/^uv==/ { on = 1 } on { print } on && !/\\$$/ { exit }' requirements.lock > $(VENV)/uv.lock
	@$(VENV)/bin/python -m pip install -qq --disable-pip-version-check --require-hashes --no-deps -r $(VENV)/uv.lock
	@UV_COMPILE_BYTECODE_TIMEOUT=600 uv pip install --quiet --python $(VENV)/bin/python --require-hashes --compile-bytecode -r $(LOCK)
	@cp $(LOCK) $(INSTALLED)

.PHONY: data
data: env
	@test -d data || { echo "Pulling the sample from .dvc/$(REMOTE)"; dvc pull --quiet --remote $(REMOTE) data.dvc; }

.PHONY: clean
clean:  ## Remove the outputs of the last run (DVC's cache, MLflow's runs and the data stay)
	@rm -rf dataset validation encoder probe baseline finetune evaluation registration validation.failed .cache .*.partial .*.old
