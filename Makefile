# zenvoy: `make demo` and `make test` set everything up by themselves. `make` lists the rest.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin

help: ## list what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: .venv/ready ## make .venv with everything that is pinned in requirements.lock

.venv/ready: requirements.lock pyproject.toml scripts/setup
	scripts/setup $(PYTHON)

demo: setup ## watch two services fall asleep and wake; KEEP=1 stays up
	$(BIN)/python examples/demo/run.py $(if $(KEEP),--keep)

test: setup ## pass every test; installs what they need where it may
	scripts/system-packages
	$(BIN)/pytest --numprocesses 2 --dist loadfile

lint: setup ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test ## what every change has to pass; CI runs cluster-test too

golden: setup ## write the golden files anew
	ZENVOY_GOLDEN=write $(BIN)/pytest tests -k golden

install-yaml: ## render deploy/install.yaml from the chart, and what the chart ships of other folders
	scripts/install-yaml

session: setup ## record the terminal session of the README into docs/img/session.svg
	$(BIN)/python scripts/record_session.py

fuzz: setup ## fuzz everything that arrives from outside, a minute for each input; SECONDS_EACH=3600 for longer
	$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS_EACH),60)

bench: setup ## figures, as ratios against something run beside it
	scripts/system-packages golang-go
	$(BIN)/python -m bench

cluster: setup ## start a Kubernetes here, with NODE=1 one that runs pods; tests/cluster/README.md
	$(if $(NODE),scripts/system-packages --cluster)
	tests/cluster/cluster up $(if $(NODE),--node)

cluster-test: setup ## pass every test that needs a Kubernetes; builds one (minutes, once), as root runs pods
	scripts/system-packages --cluster
	$(if $(filter own,$(ZENVOY_TEST_CLUSTER)),,tests/cluster/cluster build)
	$(BIN)/pytest tests/cluster

bench-cluster: setup ## cold starts on a Kubernetes' node, against scaling by hand
	scripts/system-packages --cluster
	$(BIN)/python -m bench.cluster

lock: setup ## pin the dependencies anew, within the ranges of pyproject.toml
	scripts/lock
	$(BIN)/python scripts/sbom.py

sbom: setup ## write deploy/sbom.cdx.json, the Python packages of the image, from requirements-runtime.lock
	$(BIN)/python scripts/sbom.py

pin-images: setup ## pin the base images of deploy/Dockerfile and the chart by their present digests
	$(BIN)/python scripts/pin_images.py

clean: ## remove what was made here
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .fuzz .import_linter_cache

.PHONY: help setup demo test lint check golden install-yaml session fuzz bench cluster cluster-test bench-cluster lock sbom pin-images clean
