# make demo    install and run the main job on a simulated archive
# make test    install and run every test but the slow ones
# make test-all   the slow ones too, with SLURM, JupyterHub, podman (as root: installs them)
# make notebooks  execute the six notebooks
# make check   linters and types
# make bench   every figure of README's table (about 15 minutes)

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
# pip knows extra places of packages by itself; uv has to be told.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
# Where it is set, as in many images, each of the tests' hundreds of processes compiles torch anew.
unexport PYTHONDONTWRITEBYTECODE

# Two at a time, a file to each; the arithmetic of one must not take the other's core.
TEST := OMP_NUM_THREADS=1 $(RUN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-all notebooks programs check bench clean
.DEFAULT_GOAL := demo

demo: $(VENV)/.installed
	$(RUN)/cropcube run studies/demo.yaml --out demo

test: $(VENV)/.installed-dev
	$(TEST) -m "not slow"

test-all: $(VENV)/.installed-dev .venv-checkov/.installed programs
	$(TEST)

notebooks: $(VENV)/.installed-dev
	$(RUN)/python notebooks/run.py

# What some of the slow tests run; where they cannot be installed, those tests say why they skip.
programs: $(VENV)/.installed-dev
	-test "$$(id -u)" != 0 || (apt-get update -q && apt-get install -q -y --no-install-recommends \
		slurm-wlm munge podman buildah runc catatonit mmdebstrap)
	-npm install --silent -g configurable-http-proxy
	$(RUN)/uv pip install --python $(RUN)/python --quiet -c constraints.txt jupyterhub

# checkov wants older releases of what others need.
.venv-checkov/.installed: $(RUN)/uv
	$(RUN)/uv venv --quiet --allow-existing --python $(RUN)/python .venv-checkov
	$(RUN)/uv pip install --quiet --python .venv-checkov/bin/python checkov==3.3.30
	touch $@

check: $(VENV)/.installed-dev
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy

bench: $(VENV)/.installed-dev
	$(RUN)/python -m benchmarks kernel
	$(RUN)/python -m benchmarks build
	$(RUN)/python -m benchmarks models
	$(RUN)/python -m benchmarks real

$(RUN)/uv:
	$(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet uv

# torch first and alone: the tested CPU build, before anything could ask for another.
$(VENV)/.installed: $(RUN)/uv pyproject.toml constraints.txt
	$(RUN)/uv pip install --python $(RUN)/python --quiet -c constraints.txt torch
	$(RUN)/uv pip install --python $(RUN)/python --quiet -c constraints.txt -e '.[all]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(RUN)/uv pip install --python $(RUN)/python --quiet -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .venv-checkov demo
