# Each target makes what it needs; `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help serve test test-long test-gpu check fuzz lint proto soak bench bench-peers wheel eval clients ray notebooks lock clean bento image \
	image-check k8s-check sbom bentoml-versions bentoml-oldest bentoml-newest bentoml-next
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

VENV := .venv
BIN := $(VENV)/bin
SERVE := $(VENV)/.serve
READY := $(VENV)/.test
EVAL := .venv-eval
RAY := .venv-ray
BENTOML := .venv-bentoml
K8S := .venv-k8s
PORT ?= 3000
# One more than the two cores: tests wait for servers, for limits of time, for processes that end.
# The long ones compute, or start much at a time.
WORKERS ?= 3
export BENTOML_DO_NOT_TRACK := True
# Some images set it; then each server and each command would compile all sources anew.
unexport PYTHONDONTWRITEBYTECODE

# The interpreter for a new environment: python3.11 if there, else any of 3.10 to 3.13.
FITS = import ensurepip, sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 14))
PYTHON ?= $(shell for python in python3.11 python3 python3.12 python3.13 python3.10; do \
	"$$python" -c "$(FITS)" 2>/dev/null && { command -v "$$python"; break; }; done)

# What to install as torch. It is not in the lock: the build depends on the machine. It is looked for
# where pip is told to look (PIP_FIND_LINKS, an index); where nobody says, PyTorch's own index has the
# build for this machine. PYTHIA_TORCH may name a wheel file or hold options, as of pip.
PYTHIA_TORCH ?= torch==2.13.0
INSTALL = $(PYTHON) tools/install.py

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-16s %s\n", $$1, $$2}' Makefile

serve: $(SERVE)  ## the service on port 3000 (PORT=...); PYTHIA_MODEL and other settings as in docs/settings.md
	exec $(BIN)/bentoml serve --port $(PORT)

# Files are shared out between processes in the order of collection: those with servers come first.
PYTEST = $(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
NEEDS = $(BIN)/python -m tests.needs

test: $(READY)  ## the tests, but the long ones and those for a GPU (ARGS=... goes to pytest)
	@$(NEEDS)
	$(PYTEST) -m "not gpu and not long" $(ARGS)

test-long: WORKERS = 2
PROGRAMS = .venv-clients/.ready .venv-clients-load/.ready .npm-clients/.ready
test-long: $(READY) $(EVAL)/.ready $(RAY)/.ready .venv-wheel/.ready $(PROGRAMS)  ## the long tests: fuzzing, floods, rolling restarts
	@$(NEEDS)
	$(PYTEST) -m "long and not gpu" $(ARGS)

check: lint  ## lint, types and the unit tests of what changed, in less than 90 s on two cores
	$(PYTEST) -m "not gpu and not long" $$($(BIN)/python tools/changed_tests.py) $(ARGS)

test-gpu: $(READY)  ## the tests that need a CUDA device
	$(BIN)/pytest -m gpu $(ARGS)

fuzz: $(READY)  ## 20,000 requests by schemathesis, right and wrong (ARGS="--examples N --seed N")
	$(BIN)/python -m tests.fuzz.http $(ARGS)

lint: $(READY)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv-proto/.ready: $(SERVE) requirements/proto.txt
	@$(INSTALL) lock .venv-proto requirements/proto.txt
	@touch $@

proto: .venv-proto/.ready  ## make the gRPC code from the .proto files, with the generator that is pinned for it
	.venv-proto/bin/python tools/make_proto.py $(ARGS)

soak: $(READY)  ## two minutes of mixed load with cancelled requests (ARGS="--minutes N")
	$(BIN)/python -m bench.soak $(ARGS)

bench: $(READY)  ## speed beside other engines on this machine (ARGS=... goes to the benchmark)
	$(BIN)/python -m bench.cpu $(ARGS)

bench-peers: $(READY)  ## install llama.cpp and CTranslate2, so that `make bench` includes them
	$(BIN)/python -m venv .venv-peers
	CMAKE_ARGS="-DGGML_NATIVE=ON" .venv-peers/bin/pip install --no-deps --require-hashes \
		--no-binary llama-cpp-python -r requirements/peers.txt

wheel: .venv-wheel/.ready  ## wheels with compiled CPU kernels, for x86-64 and arm64, in dist (ARGS=<folder>)
	PYTHONPATH=. .venv-wheel/bin/python -m tools.wheel $(ARGS)

eval: $(EVAL)/.ready  ## install lm-evaluation-harness beside ours; see docs/evaluate.md

notebooks: $(EVAL)/.ready  ## run docs/notebooks and keep what they show (ARGS=--check compares it)
	$(EVAL)/bin/python tools/notebooks.py $(ARGS)

# Its own environment, because its pins differ from ours. What it does not pin (torch, transformers)
# is looked for in $(VENV).
SITE := import sysconfig; print(sysconfig.get_path("purelib"))
SEE_OURS = $(BIN)/python -c '$(SITE)' >"$$($(1)/bin/python -c '$(SITE)')/pythia_bento_venv.pth"
$(EVAL)/.ready: $(READY) requirements/eval.txt
	@$(INSTALL) lock $(EVAL) requirements/eval.txt
	@$(call SEE_OURS,$(EVAL))
	@touch $@

clients: $(READY) $(PROGRAMS)  ## other people's programs against this server, each in its own environment; see docs/clients.md
	$(BIN)/python -m tests.clients $(ARGS)

.venv-clients/.ready: $(READY) requirements/clients.txt
	@$(INSTALL) lock .venv-clients requirements/clients.txt
	@touch $@

.venv-clients-load/.ready: $(READY) requirements/clients-load.txt
	@$(INSTALL) lock .venv-clients-load requirements/clients-load.txt
	@$(call SEE_OURS,.venv-clients-load)
	@touch $@

# Without npm there is no such folder, and a line says so.
.npm-clients/.ready: $(READY) $(wildcard tests/clients/node/*)
	@$(NEEDS) npm
	@! command -v npm >/dev/null || { \
		mkdir -p .npm-clients && cp tests/clients/node/* .npm-clients && cd .npm-clients \
		&& npm ci --silent --no-audit --no-fund && touch .ready; }

ray: $(RAY)/.ready  ## install Ray beside ours; see docs/sweeps.md

$(RAY)/.ready: $(READY) requirements/ray.txt
	@$(INSTALL) lock $(RAY) requirements/ray.txt
	@$(call SEE_OURS,$(RAY))
	@touch $@

.venv-wheel/.ready: $(READY) requirements/wheel.txt
	@$(INSTALL) lock .venv-wheel requirements/wheel.txt
	@$(call SEE_OURS,.venv-wheel)
	@touch $@

# What replaces parts of BentoML has to fit every BentoML that may be installed.
BENDING = -m pytest -n $(WORKERS) -p no:cacheprovider tests/unit/server/bentoml $(ARGS)
bentoml-versions: bentoml-oldest bentoml-newest  ## tests of what replaces parts of BentoML, with the oldest and newest that pyproject.toml admits

bentoml-oldest bentoml-newest: bentoml-%: $(BENTOML)-%/.ready
	$(BENTOML)-$*/bin/python $(BENDING)

$(BENTOML)-%/.ready: $(READY) requirements/bentoml-%.txt
	@$(INSTALL) lock $(BENTOML)-$* requirements/bentoml-$*.txt
	@$(call SEE_OURS,$(BENTOML)-$*)
	@touch $@

bentoml-next: $(READY)  ## the same with the newest BentoML there is, admitted or not
	$(BIN)/python -m venv --clear --without-pip $(BENTOML)-next
	$(BIN)/python -m pip --python $(BENTOML)-next install --quiet --no-deps --pre bentoml
	@$(call SEE_OURS,$(BENTOML)-next)
	$(BENTOML)-next/bin/python $(BENDING)

lock: $(SERVE)  ## resolve requirements/*.txt anew; ARGS=--upgrade takes the newest of all
	requirements/lock $(ARGS)

clean:  ## remove the environment and everything built
	rm -rf $(VENV) $(EVAL) $(RAY) $(BENTOML)-* .venv-peers .venv-proto .venv-wheel .venv-clients* .npm-clients $(K8S) build dist *.egg-info .coverage* htmlcov .pytest_cache .mypy_cache .ruff_cache \
		.hypothesis pythia_bento/model/kernels/cpu/lib

# What serving needs, and what tests and lint need too: the second adds to the first.
$(SERVE): requirements/serve.txt
$(READY): requirements/test.txt
$(SERVE) $(READY): pyproject.toml requirements/uv.txt requirements/compiler.txt tools/install.py
	@[ -n "$(PYTHON)" ] || { echo "error: no Python 3.10 to 3.13 with the venv module was found;" \
		"install one (on Debian and Ubuntu: python3-venv) or say make PYTHON=<path>" >&2; exit 1; }
	@$(INSTALL) $(@:$(VENV)/.%=%) --torch "$(PYTHIA_TORCH)"
	@touch $(SERVE) $@

# What is served: with MODEL=... one that is pinned in the Bento, without one that PYTHIA_MODEL
# names; and the kind of device, which decides the image.
MODEL ?=
DEVICE ?= cpu
IMAGE ?= pythia-bento:$(DEVICE)
BACKEND ?= docker
# Of the backend's build, as network=none.
BUILD_OPTIONS ?=
BENTO = $(BIN)/bentoml build --output tag $(if $(MODEL),--arg model=$(MODEL)) --arg device=$(DEVICE)

bento: $(READY)  ## a Bento for DEVICE=cpu|cuda, of PYTHIA_MODEL or with MODEL=... inside; see docs/deploy.md
	$(BENTO)

image: $(READY)  ## a container image of it (IMAGE=name, BACKEND=docker|podman)
	tag=$$($(BENTO) | sed -n 's/^__tag__://p'); \
	$(BIN)/python -m tools.image "$$tag" $(IMAGE) --backend $(BACKEND) $(BUILD_OPTIONS:%=--option %)

image-check: $(READY)  ## build the image and run it with podman, without any registry (as root)
	deploy/image/check $(ARGS)

K8S_PINS = requirements/k8s.txt requirements/kserve.txt
$(K8S)/.ready: $(SERVE) $(K8S_PINS)
	@$(INSTALL) lock $(K8S) $(K8S_PINS)
	@touch $@

# It takes the image that `make image-check ARGS=<folder>` left in the folder, or makes one.
k8s-check: $(READY) $(K8S)/.ready  ## build and check deploy/k8s, and run its pod with podman (as root)
	deploy/k8s/check $(ARGS)

# What runs containers: the image is listed from inside, without a network.
RUNS = $(if $(filter podman,$(BACKEND)),podman,docker)
SBOM ?= build/pythia-sbom.cdx.json
sbom: $(K8S)/.ready  ## a bill of materials of IMAGE=... (CycloneDX) in SBOM=file
	@mkdir -p "$(dir $(SBOM))"
	$(RUNS) run --rm -i --network none --entrypoint /app/.venv/bin/python $(IMAGE) - \
		<tools/image_inventory.py | $(K8S)/bin/python tools/sbom.py $(IMAGE) >"$(SBOM)"
