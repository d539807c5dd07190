# The two commands of a fresh machine: `make demo` and `make test`. `make help` lists the others.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

LOCAL := $(CURDIR)/.local
VENV := $(LOCAL)/venv
PYTHON := $(VENV)/bin/python
CLUSTER := python3 -m hack.localcluster
# Compiling, building images and what keeps one core busy hinder each other little.
TOGETHER := $(MAKE) --no-print-directory --jobs=4
NAMESPACE := tenant-backup-system

# A cluster of one's own: make demo KUBECONTEXT=name (after make images PUSH=registry/name).
KUBECONTEXT ?=
PUSH ?=
ONLY ?=
SIZE ?=
PYTEST_ARGS ?=

export PATH := $(LOCAL)/bin:$(VENV)/bin:$(PATH)
export TENANT_BACKUP_CONTEXT := $(KUBECONTEXT)
ifeq ($(KUBECONTEXT),)
export KUBECONFIG := $(LOCAL)/kubeconfig
CLUSTER_READY := cluster-and-images
else
HELM_CONTEXT := --kube-context $(KUBECONTEXT)
endif
# Where the images are: in the local cluster, or where `make images PUSH=…` brought them.
IMAGES := $(or $(PUSH),localhost)

.PHONY: help
help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  \033[1m%-24s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Local cluster
.PHONY: cluster-up cluster-down cluster-status cluster-load images images-for-tests
cluster-up:  ## start a real single-node Kubernetes on this machine (root; about 15 minutes the first time)
	@$(CLUSTER) up

cluster-down:  ## stop it and leave nothing behind
	@$(CLUSTER) down

cluster-status:  ## say what runs
	@$(CLUSTER) status

cluster-load:  ## load an image archive: make cluster-load IMAGE=file.tar
	@$(CLUSTER) load $(or $(IMAGE),$(error say which archive: make cluster-load IMAGE=file.tar))

.PHONY: cluster-and-images
cluster-and-images:
	@$(TOGETHER) cluster-up images

images:  ## build the images and load them; or push them: make images PUSH=registry/name
	@$(CLUSTER) images $(if $(PUSH),--push $(PUSH))

images-for-tests:
	@$(CLUSTER) images --for-tests

##@ Use
.PHONY: install demo
install: $(CLUSTER_READY)  ## install the operator by its chart into namespace tenant-backup-system
	helm upgrade --install tenant-backup charts/tenant-backup-operator $(HELM_CONTEXT) --take-ownership --force-conflicts \
	  --namespace $(NAMESPACE) --create-namespace --wait --timeout 2m \
	  --set operator.image.repository=$(IMAGES)/tenant-backup-operator,operator.image.tag=dev \
	  --set runner.image.repository=$(IMAGES)/tenant-backup-runner,runner.image.tag=dev \
	  --set-string podAnnotations.image="$$(cat $(LOCAL)/operator-image)"

demo: setup install  ## two tenants, rows and files: back up, destroy, restore, prove equal
	$(PYTHON) -m hack.demo --images $(IMAGES)/ $(if $(KUBECONTEXT),--context $(KUBECONTEXT))

##@ Develop
.PHONY: setup generate verify test bench lock clean
setup: $(VENV)/.ready  ## make the Python environment in .local/venv

$(VENV)/.ready: constraints/dev.txt pyproject.toml
	@python3 -c 'import sys; sys.version_info < (3, 11) and sys.exit("Python 3.11 or newer is needed, python3 is %s" % sys.version.split()[0])'
	@(python3 -c 'import ensurepip, os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")' \
	  && which gcc pkg-config mariadb_config) >/dev/null 2>&1 || $(CLUSTER) packages
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --require-hashes -r constraints/dev.txt
	$(PYTHON) -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

.PHONY: packages
packages:
	@$(CLUSTER) packages

$(LOCAL)/bin/helm:
	@$(CLUSTER) tools

generate: setup $(LOCAL)/bin/helm  ## write CRDs and reference pages from the API types
	$(PYTHON) -m hack.generate

verify: lint $(LOCAL)/bin/helm  ## generated files, lint, types, layers
	$(PYTHON) -m hack.generate --check

.PHONY: lint
lint: setup
	ruff check .
	ruff format --check .
	mypy
	mypy -p hack.localcluster
	lint-imports

# The tests of the cluster's own life take it down many times; some tests chosen by hand leave it alone.
test: packages  ## every test, on real parts; PYTEST_ARGS="-k name" runs some
	@$(TOGETHER) verify cluster-up images-for-tests
	$(PYTHON) -m pytest $(if $(PYTEST_ARGS),-m "not owns_cluster" $(PYTEST_ARGS),-n 3)

bench: packages setup  ## measure against what people use today; ONLY=pg, SIZE=0.2 run parts
	$(PYTHON) -m pip install --quiet --require-hashes -r constraints/bench.txt
	$(PYTHON) -m bench $(if $(ONLY),--only $(ONLY)) $(if $(SIZE),--size $(SIZE))

lock: setup  ## renew the pinned versions and hashes in constraints/
	hack/lock

clean:  ## remove what was built in this checkout (the cache and the cluster stay)
	rm -rf build dist .local/venv .*_cache
