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
# of `make image`: the name may have a registry before it; GPU=1 for NVIDIA cards; TAG is the commit if not given
IMAGE ?= contrastive-pipeline
GPU ?=
TAG ?=
# what shapes it
IN_IMAGE := Dockerfile .dockerignore requirements.lock requirements-cpu.lock requirements-gpu.lock mlflow/sbom.lock \
  params.yaml dvc.yaml conf models components pipelines benchmarks/textures10.py
ENGINE ?= $(shell for name in docker podman nerdctl; do command -v $$name >/dev/null && echo $$name && break; done)

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
test: env  ## Run the tests but for the slow ones, in JOBS processes (2)
	@python -m pytest -n $(JOBS) --dist loadfile -m "not slow" --durations 20

.PHONY: test-slow
test-slow: env  ## Run the slow tests: whole pipelines, real servers, other backends
	@python -m pytest -n $(JOBS) --dist loadfile -m slow --durations 20

.PHONY: ui
ui: env  ## Show the runs, curves, pictures and registered models in MLflow's page (PORT=5000)
	@exec python -m pipelines ui --port $(PORT)

.PHONY: lint
lint: env  ## Check style, format, types, and which package may import which
	ruff check
	ruff format --check
	mypy
	lint-imports

.PHONY: docs
docs: env  ## Build the documentation as a site in site/; a link that leads nowhere is an error
	@NO_MKDOCS_2_WARNING=1 mkdocs build --strict

.PHONY: lock
lock: env  ## Compile the locks anew from pyproject.toml
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  pyproject.toml --extra cpu --extra signing --extra server --extra export --extra hub --extra dev -o requirements.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  pyproject.toml --extra gpu --extra signing --extra storage -o requirements-gpu.lock
	cp requirements.lock requirements-cpu.lock  # what is pinned there stays: the image runs what the tests tested
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  pyproject.toml --extra cpu --extra signing --extra storage -o requirements-cpu.lock
	@# the tracking server's image: MLflow and the extra `server` without the pipeline, in the versions tested here
	python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
	  print(*[line for line in project['dependencies'] if line.startswith('mlflow==')], \
	  *project['optional-dependencies']['server'], sep='\n')" | \
	  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --no-annotate -c requirements.lock - -o mlflow/requirements.lock
	@# what lists the packages of both images while they are built
	echo cyclonedx-bom | \
	  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --no-annotate -c requirements.lock - -o mlflow/sbom.lock

# the engine, and `more`: a format that holds a health check, and the index, certificates and proxy of this machine
define prepare_build
engine="$(ENGINE)"; test -n "$$engine" || { \
	  echo "error: no container engine: install docker or podman, or name one with ENGINE=…" >&2; exit 2; }; \
	"$$engine" info >/dev/null 2>&1 || { \
	  echo "error: $$engine is here but can't be used; \`$$engine info\` tells why (is its service running?)" >&2; exit 2; }; \
	settings=$$(mktemp -d); trap 'rm -rf "$$settings"' EXIT; more=(); \
	case "$${engine##*/}" in podman|buildah) more+=(--format docker);; esac; \
	configured() { python3 -m pip config get "global.$$1" 2>/dev/null || true; }; \
	index="$${UV_DEFAULT_INDEX:-$${PIP_INDEX_URL:-$$(configured index-url)}}"; \
	certificates="$${SSL_CERT_FILE:-$${PIP_CERT:-$${REQUESTS_CA_BUNDLE:-$$(configured cert)}}}"; \
	test -z "$$index" || printf 'export PIP_INDEX_URL=%q UV_DEFAULT_INDEX=%q\n' "$$index" "$$index" >> "$$settings/packages"; \
	if test -n "$$certificates"; then \
	  test -f "$$certificates" || { echo "error: $$certificates: no such file of certificates" >&2; exit 2; }; \
	  echo 'export PIP_CERT=/run/secrets/certificates SSL_CERT_FILE=/run/secrets/certificates' >> "$$settings/packages"; \
	  more+=(--secret "id=certificates,src=$$certificates"); fi; \
	test ! -f "$$settings/packages" || more+=(--secret "id=packages,src=$$settings/packages"); \
	for name in {HTTP,HTTPS,NO}_PROXY {http,https,no}_proxy; do \
	  test -z "$${!name:-}" || more+=(--build-arg "$$name"); done
endef

.PHONY: image
image:  ## Build the image of the last commit, tagged with it (IMAGE=registry/name, GPU=1, TAG=…, ENGINE=podman)
	@commit=$$(git rev-parse HEAD); tag="$(TAG)"; \
	changed=$$(git status --porcelain -- $(IN_IMAGE)); \
	if test -n "$$changed" && test -z "$$tag"; then \
	  echo "error: not committed, so that the commit would not tell what is in the image:" >&2; \
	  echo "$$changed" >&2; echo "commit it, or name the image yourself with TAG=…" >&2; exit 2; fi; \
	test -z "$$changed" || commit="$$commit-dirty"; \
	tag="$${tag:-$${commit:0:12}}$(if $(GPU),-gpu)"; \
	$(prepare_build); \
	"$$engine" build --platform linux/amd64 --build-arg LOCK=$(if $(GPU),requirements-gpu.lock,requirements-cpu.lock) \
	  "$${more[@]}" --build-arg COMMIT="$$commit" --build-arg CREATED="$$(git log -1 --format=%cI)" \
	  $(if $(BASE),--build-arg BASE=$(BASE)) --tag "$(IMAGE):$$tag" . && echo "$(IMAGE):$$tag"

.PHONY: server-image
server-image: name = $(if $(filter file,$(origin IMAGE)),mlflow-server,$(IMAGE))
server-image:  ## Build the tracking server's image, tagged with MLflow's version (IMAGE=…, TAG=…, ENGINE=podman)
	@version=$$(sed -n 's/^mlflow==\([0-9.]*\).*/\1/p' mlflow/requirements.lock); tag="$(TAG)"; tag="$${tag:-$$version}"; \
	$(prepare_build); \
	"$$engine" build --platform linux/amd64 "$${more[@]}" --build-arg COMMIT="$$(git rev-parse HEAD)" \
	  $(if $(BASE),--build-arg BASE=$(BASE)) --tag "$(name):$$tag" mlflow && echo "$(name):$$tag"

.PHONY: env
env:  ## Create .venv from requirements.lock, with `contrastive` in it, unless it is there (LOCK=requirements-gpu.lock for CUDA)
	@cmp -s $(LOCK) $(INSTALLED) || $(MAKE) --no-print-directory fresh-env
	@# the command `contrastive`, which runs the code of this folder
	@test -x $(VENV)/bin/contrastive || \
	  uv pip install --quiet --python $(VENV)/bin/python --no-deps --no-build-isolation --editable .
	@# outside of git, as in a downloaded archive, DVC works only if it is told to
	@if test -e .git || git rev-parse --git-dir >/dev/null 2>&1; then \
	  ! grep -qs no_scm .dvc/config.local || dvc config --local --unset core.no_scm; \
	elif ! grep -qs no_scm .dvc/config.local; then \
	  dvc config --local core.no_scm true; \
	  echo "No git repository here; only experiments need one: git init && git add -A && git commit -m Start"; fi

.PHONY: fresh-env
fresh-env:
	@# not the Python of an environment that is about to be removed
	@PATH=$$(tr : '\n' <<< "$$PATH" | grep -vxF "$(CURDIR)/$(VENV)/bin" | paste -sd :); \
	python=$$(for name in python3 python3.12 python3.11; do \
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
	@rm -rf dataset validation encoder search probe baseline finetune champion evaluation registration validation.failed .cache live/*/ .*.partial .*.old
