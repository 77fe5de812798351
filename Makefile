# `make` lists what can be made. Each target sets up what it needs: on a machine with Python 3.11, pip and
# make, `make demo` or `make test` is the first command.

VENV ?= .venv
LOCK := requirements/cpu.txt
# Python 3.11 by whatever name it has here: the lock holds wheels of that version alone.
PYTHON ?= $(shell for name in python3.11 python3 python; do \
	"$$name" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && echo "$$name" && break; \
	done)
PYTEST_ARGS ?=
# Files of tests, each worker on its share of the processors (tests/conftest.py): half of the work is waiting for others.
TWO_AT_A_TIME := -n 2 --dist loadfile
LOCK_ARGS ?=

BIN := $(VENV)/bin
LOCKED := $(VENV)/.locked
INSTALLED := $(VENV)/.installed
# Airflow's Kubernetes provider and kfp want different Kubernetes clients.
AIRFLOW_VENV ?= .venv-airflow
AIRFLOW_LOCK := requirements/airflow.txt
AIRFLOW_INSTALLED := $(AIRFLOW_VENV)/.installed
# optimum-onnx wants transformers below 4.58.
OPTIMUM_VENV ?= .venv-optimum
OPTIMUM_LOCK := requirements/optimum.txt
OPTIMUM_INSTALLED := $(OPTIMUM_VENV)/.installed
# Triton from PyPI wants numpy below 2; a server's Python is an environment of its own anyway.
TRITON_VENV ?= .venv-triton
TRITON_LOCK := requirements/triton.txt
TRITON_INSTALLED := $(TRITON_VENV)/.installed
# MLflow's server, for the tests of its mirror: a hundred packages that the line has no need of.
MLFLOW_VENV ?= .venv-mlflow
MLFLOW_LOCK := requirements/mlflow.txt
MLFLOW_INSTALLED := $(MLFLOW_VENV)/.installed
# NNCF, Olive and torchao: what the line is measured against, and no test needs.
PEERS_VENV ?= .venv-peers
PEERS_LOCK := requirements/peers.txt
PEERS_INSTALLED := $(PEERS_VENV)/.installed
BENCH_ARGS ?=
IMAGE_LOCK := images/cpu/requirements.txt
LIGHT_LOCK := images/light/requirements.txt
GPU_LOCK := images/gpu/requirements.txt
# What pip reads for the GPU lock, whose torch is the one on PyPI: no configuration that offers a CPU build.
GPU_PIP_CONFIG ?= /dev/null
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input

# The tests start hundreds of processes, and each would compile the package's own source again.
unexport PYTHONDONTWRITEBYTECODE

.DELETE_ON_ERROR:
.PHONY: help install install-airflow install-optimum install-triton install-mlflow install-peers demo system-packages test test-slow figures bench-peers lint lint-style lint-format lint-types lint-imports \
	lint-docs lint-images format docs pipelines lock lock-gpu images image-sizes clean clean-all
.DEFAULT_GOAL := help

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile

install: $(INSTALLED) ## make .venv/ from the lock, with the modelmill command in it

install-airflow: $(AIRFLOW_INSTALLED) ## make .venv-airflow/ with Airflow, its providers and this project's DAGs

install-optimum: $(OPTIMUM_INSTALLED) ## make .venv-optimum/, in which a test loads a bundle with optimum

install-triton: $(TRITON_INSTALLED) ## make .venv-triton/ with a real Triton, for the smoke test: MODELMILL_TRITON=.venv-triton

install-mlflow: $(MLFLOW_INSTALLED) ## make .venv-mlflow/ with a real MLflow server, for the tests of its mirror

install-peers: $(PEERS_INSTALLED) ## make .venv-peers/, in which `make bench-peers` makes the peers' models

demo: $(INSTALLED) ## the whole line on a small real model, without a network
	$(BIN)/modelmill run pipelines/recipes/demo.yaml

system-packages:
	bash tests/setup/system-packages.sh

test: $(INSTALLED) $(AIRFLOW_INSTALLED) $(TRITON_INSTALLED) system-packages ## the tests, but for the sweeps of minutes (PYTEST_ARGS adds options)
	$(BIN)/python -m pytest -m "not slow and not figures" $(TWO_AT_A_TIME) $(PYTEST_ARGS)

# pytest exits with 5 when it found no test to run: a tree without a slow test is no failure.
test-slow: $(INSTALLED) $(AIRFLOW_INSTALLED) $(OPTIMUM_INSTALLED) $(TRITON_INSTALLED) $(MLFLOW_INSTALLED) system-packages ## the sweeps of minutes alone
	$(BIN)/python -m pytest -m "slow and not figures" $(TWO_AT_A_TIME) $(PYTEST_ARGS) || test $$? -eq 5

# Accuracy after minutes of training, times and ratios: on a machine that does nothing else meanwhile.
figures: $(INSTALLED) $(TRITON_INSTALLED) system-packages ## measure what the README states, on a quiet machine: the better part of an hour
	$(BIN)/python -m pytest -m figures -s $(PYTEST_ARGS)

# Timings against the peers', for the README's table: half an hour, on a quiet machine.
bench-peers: $(INSTALLED) $(OPTIMUM_INSTALLED) $(PEERS_INSTALLED) ## time the line's models against the peers' (BENCH_ARGS adds options)
	PYTHONPATH=tests $(BIN)/python -m peers.bench_peers $(BENCH_ARGS)

lint: lint-style lint-format lint-types lint-imports lint-docs lint-images ## every check that reads the source and runs none of it

lint-style: $(INSTALLED)
	$(BIN)/ruff check

lint-format: $(INSTALLED)
	$(BIN)/ruff format --check

lint-types: $(INSTALLED)
	$(BIN)/mypy

lint-imports: $(INSTALLED)
	$(BIN)/lint-imports

lint-docs: $(INSTALLED)
	$(BIN)/python -m modelmill.cli.docs --check

lint-images: $(INSTALLED)
	$(BIN)/hadolint images/*/Dockerfile

format: $(INSTALLED) ## let ruff mend and lay out the source
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(INSTALLED) ## write the generated documents again
	$(BIN)/python -m modelmill.cli.docs

pipelines: $(INSTALLED) ## compile pipelines/recipes into pipelines/compiled, and the steps' components
	$(BIN)/python pipelines/build.py

# The options keep this machine out of the lock: no index, no wheel directory, no path. --allow-unsafe pins
# pip and setuptools too, which --require-hashes needs. LOCK_ARGS=--upgrade or "-P NAME" moves versions;
# without either, what is locked stays.
COMPILE := CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe \
	--strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options $(LOCK_ARGS)

lock: | $(LOCKED) ## resolve pyproject.toml into requirements/ and images/ (LOCK_ARGS=--upgrade for newer versions)
	$(COMPILE) --extra ml --extra s3 --extra demo --extra dev --extra kubeflow --output-file $(LOCK) pyproject.toml
	$(COMPILE) --extra airflow --extra s3 --output-file $(AIRFLOW_LOCK) pyproject.toml
	$(COMPILE) --output-file $(OPTIMUM_LOCK) requirements/optimum.in
	$(COMPILE) --output-file $(PEERS_LOCK) requirements/peers.in
# The versions that evaluate runs a model with, so that the server's answers are the same.
	@sed -nE 's/^((onnxruntime|tokenizers)==[^ ]+).*/\1/p' $(LOCK) > $(VENV)/served.txt
	$(COMPILE) --constraint $(VENV)/served.txt --output-file $(TRITON_LOCK) requirements/triton.in
	@sed -i '/^    #   -c /d' $(TRITON_LOCK)
	$(COMPILE) --output-file $(MLFLOW_LOCK) requirements/mlflow.in
	$(COMPILE) --extra ml --extra s3 --output-file $(IMAGE_LOCK) pyproject.toml
	$(COMPILE) --extra s3 --constraint $(IMAGE_LOCK) --output-file $(LIGHT_LOCK) pyproject.toml
	@sed -i '/^    #   -c /d' $(LIGHT_LOCK)
	@if grep -nE '^(nvidia-|cuda-|triton)|://| @ ' $(LOCK) $(AIRFLOW_LOCK) $(OPTIMUM_LOCK) $(PEERS_LOCK) $(IMAGE_LOCK) $(LIGHT_LOCK) || \
		grep -nE '://| @ ' $(TRITON_LOCK) $(MLFLOW_LOCK); then \
		echo "make lock: a lock names a CUDA package or an address, so it is not what this project installs." >&2; \
		echo "  Let pip find a CPU build of torch first: CONTRIBUTING.md, 'Locks'." >&2; exit 1; fi

# By itself, for where an index does not serve metadata alone pip downloads gigabytes of CUDA to read it.
lock-gpu: | $(LOCKED) ## resolve the GPU image's lock with the versions of the CPU image's, after make lock
	@sed -nE 's/^([a-z0-9._-]+==[^ ]+).*/\1/p' $(IMAGE_LOCK) | \
		sed '/^torch==/d; s/^onnxruntime==/onnxruntime-gpu==/' > $(VENV)/shared.txt
	env -u PIP_FIND_LINKS -u PIP_EXTRA_INDEX_URL PIP_CONFIG_FILE=$(GPU_PIP_CONFIG) $(COMPILE) \
		--extra gpu --extra s3 --constraint $(VENV)/shared.txt --output-file $(GPU_LOCK) pyproject.toml
	@sed -i '/^    #   -c /d' $(GPU_LOCK)
	@if grep -nE '\+cpu|://| @ ' $(GPU_LOCK); then \
		echo "make lock-gpu: the lock names a CPU build or an address: CONTRIBUTING.md, 'Locks'." >&2; exit 1; fi

# podman or docker, whichever is there. Labels are not given as build arguments, which the Dockerfiles take as well:
# podman 4.3 finds an old label in its cache where nothing but an argument has changed.
# One time for all files, 1980, the first that a zip file can hold: with podman the same lock gives the same layers.
ENGINE ?= $(firstword $(notdir $(shell command -v podman docker)))
IMAGES ?= light cpu
IMAGE_PREFIX ?= modelmill-
VERSION ?= $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
REVISION ?= $(shell git describe --always --abbrev=40 --dirty --exclude '*' 2>/dev/null || echo unknown)
# A remote's address may hold a token.
SOURCE ?= $(shell git config --get remote.origin.url 2>/dev/null | sed -E 's|://[^@/]*@|://|' | grep . || echo unknown)
BASE_IMAGE ?=
CERT ?=
PIP_CONF ?=
BUILD_ARGS ?=
comma := ,

images: ## build IMAGES="light cpu gpu" (ENGINE=, BASE_IMAGE=, VERSION=, CERT=, PIP_CONF=: images/README.md)
	@test -n "$(ENGINE)" || { echo "make images: this needs podman or docker: apt install podman, or name one with ENGINE=..." >&2; exit 2; }
	@set -e; for image in $(IMAGES); do \
		$(ENGINE) build --file images/$$image/Dockerfile --tag $(IMAGE_PREFIX)$$image:$(VERSION) \
			$(if $(findstring podman,$(ENGINE)),--timestamp 315532800) \
			$(if $(BASE_IMAGE),--build-arg BASE_IMAGE=$(BASE_IMAGE)) \
			$(if $(CERT),--secret id=certificates$(comma)src=$(CERT) --build-arg PIP_CERT=/run/build-ca.crt) \
			$(if $(PIP_CONF),--secret id=pip_conf$(comma)src=$(PIP_CONF)) \
			--label org.opencontainers.image.version=$(VERSION) --label org.opencontainers.image.revision=$(REVISION) \
			--label org.opencontainers.image.source=$(SOURCE) \
			$(BUILD_ARGS) .; \
	done

image-sizes: ## measure the built IMAGES and write the table of images/README.md
	@python3 images/measure.py --engine "$(ENGINE)" $(foreach image,$(IMAGES),$(image)=$(IMAGE_PREFIX)$(image):$(VERSION))

clean: ## remove caches and builds; .venv/ and .modelmill/ stay
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis tests/e2e/screenshots
	find components dags pipelines tests -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

clean-all: clean ## remove the environments and the local store .modelmill/ as well
	rm -rf $(VENV) $(AIRFLOW_VENV) $(OPTIMUM_VENV) $(TRITON_VENV) $(MLFLOW_VENV) $(PEERS_VENV) .modelmill

# Two stamps: a changed pyproject.toml makes the entry point anew (a second), a changed lock the packages.
# The locked pip comes first, for the one that Python brings takes twice as long over the rest. Bytecode is
# written at the end on all cores: pip would do it on one, and to leave it to the first import means on a machine
# with PYTHONDONTWRITEBYTECODE set that every process compiles again what it imports, for seconds.
$(LOCKED): $(LOCK)
	@test -n "$(PYTHON)" || { echo "make: this needs Python 3.11: install it, or name it: make PYTHON=/path/to/python3.11 ..." >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { \
		echo "make: $(PYTHON) is not Python 3.11, for which $(LOCK) is made: name one with PYTHON=..." >&2; exit 2; }
# Debian keeps ensurepip in a package of its own (python3-venv); without it the outer pip stands in.
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) >/dev/null 2>&1 || { \
		$(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install pip; }
	@sed -n '/^pip==/,/^ *#/p' $(LOCK) > $(VENV)/pip.txt
	$(PIP) install --quiet --no-compile --require-hashes -r $(VENV)/pip.txt
	$(PIP) install --no-compile --require-hashes -r $(LOCK)
# Their own tests are a fifth of the source; some carry files for a later Python, which do not compile.
	@$(BIN)/python -m compileall -qq -j 0 -x '/tests/' $(VENV)/lib || true
	@touch $@

$(INSTALLED): $(LOCKED) pyproject.toml
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# An environment of its own (1: where) from a lock (2).
define make_environment
@test -x $(1)/bin/python || $(BIN)/python -m venv --without-pip $(1)
$(PIP) --python $(1)/bin/python install --quiet --no-compile --require-hashes -r $(2)
@$(BIN)/python -m compileall -qq -j 0 -x '/tests/' $(1)/lib || true
endef

# The package itself is found by a path file: it is the same source, and nothing of it has to be built.
$(AIRFLOW_INSTALLED): $(AIRFLOW_LOCK) | $(LOCKED)
	$(call make_environment,$(AIRFLOW_VENV),$(AIRFLOW_LOCK))
	@echo "$(CURDIR)/components" > $(AIRFLOW_VENV)/lib/python3.11/site-packages/modelmill.pth
	@touch $@

$(OPTIMUM_INSTALLED): $(OPTIMUM_LOCK) | $(LOCKED)
	$(call make_environment,$(OPTIMUM_VENV),$(OPTIMUM_LOCK))
	@touch $@

$(TRITON_INSTALLED): $(TRITON_LOCK) | $(LOCKED)
	$(call make_environment,$(TRITON_VENV),$(TRITON_LOCK))
	@touch $@

$(MLFLOW_INSTALLED): $(MLFLOW_LOCK) | $(LOCKED)
	$(call make_environment,$(MLFLOW_VENV),$(MLFLOW_LOCK))
	@touch $@

$(PEERS_INSTALLED): $(PEERS_LOCK) | $(LOCKED)
	$(call make_environment,$(PEERS_VENV),$(PEERS_LOCK))
	@touch $@
