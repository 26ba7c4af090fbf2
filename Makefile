# `make` lists the targets. `make demo` and `make test` set up everything that they need.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
# Tests wait for half of their time: four workers keep two processors busy. The tests of a file share what they start;
# tests/conftest.py puts long files first, so that the workers end together.
TEST_OPTIONS := --numprocesses 4 --dist loadfile --no-loadscope-reorder --durations 20
OWN_CLUSTER := $(filter own,$(ZENVOY_TEST_CLUSTER))

help: ## list all targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: .venv/ready ## create .venv with the pinned dependencies of requirements.lock

.venv/ready: requirements.lock pyproject.toml scripts/setup
	scripts/setup $(PYTHON)

demo: setup ## watch two services fall asleep and wake up; KEEP=1 keeps running
	$(BIN)/python examples/demo/run.py $(if $(KEEP),--keep)

test: setup ## run all tests; installs the programs that they need, if it may
	scripts/system-packages
	$(BIN)/pytest $(TEST_OPTIONS)

coverage: setup ## run all tests and report the coverage of the product by lines and branches
	scripts/system-packages
	$(BIN)/pytest $(TEST_OPTIONS) -p tests.product_coverage

lint: setup ## check format, lint, types, and import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test ## run the checks that every change must pass; CI also runs cluster-test

golden: setup ## write the golden files and the xDS descriptors again
	$(BIN)/python scripts/xds_descriptors.py
	ZENVOY_GOLDEN=write $(BIN)/pytest tests -k golden

install-yaml: ## render deploy/install.yaml from the chart, and update the chart's copies of rules and dashboards
	scripts/install-yaml

session: setup ## record the terminal session in the README
	$(BIN)/python scripts/record_session.py

fuzz: setup ## fuzz all external input, one minute each; SECONDS_EACH=3600 for longer
	$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS_EACH),60)

soak: setup ## random traffic, kills, steps of the clock and full disks for an hour, as root; MINUTES=5 for less
	scripts/system-packages --only gcc libc6-dev
	$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),60)

bench: setup ## run the measurements, as ratios to a reference from the same run
	scripts/system-packages golang-go
	$(BIN)/python -m bench

cluster: setup ## start Kubernetes on this machine; NODE=1 to run pods; see tests/cluster/README.md
	$(if $(NODE),scripts/system-packages --cluster)
	tests/cluster/cluster up $(if $(NODE),--node)

cluster-test: setup ## run the tests that need Kubernetes; builds it once (minutes); runs pods as root
	scripts/system-packages --cluster
	$(if $(OWN_CLUSTER),,tests/cluster/cluster build)
	$(BIN)/pytest --durations 20 $(if $(OWN_CLUSTER),,--numprocesses 2 --dist loadscope --no-loadscope-reorder) tests/cluster

conformance: setup ## run public test suites directly and through zenvoy, asleep and awake, and compare their failures
	scripts/system-packages --conformance
	$(BIN)/pytest --numprocesses 2 --dist loadfile --durations 10 tests/conformance

bench-cluster: setup ## measure cold starts on a Kubernetes node, compared with scaling by hand
	scripts/system-packages --cluster
	$(BIN)/python -m bench.cluster

lock: setup ## pin the dependencies again, within the ranges of pyproject.toml
	scripts/lock
	$(BIN)/python scripts/sbom.py

sbom: setup ## write deploy/sbom.cdx.json, the Python packages in the image
	$(BIN)/python scripts/sbom.py

pin-images: setup ## pin the images of deploy/Dockerfile and the chart by their current digests
	$(BIN)/python scripts/pin_images.py

clean: ## remove the virtual environment and caches
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .fuzz .import_linter_cache

.PHONY: help setup demo test coverage lint check golden install-yaml session fuzz soak bench cluster cluster-test conformance bench-cluster lock sbom pin-images clean
