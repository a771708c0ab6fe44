# Every target sets itself up: `make bench` and `make test` each work in a fresh clone, and install
# nothing the second time.  Nothing is installed outside .venv.
#
#   make bench SUITE=standard DEVICE=cuda     another suite (tiltbench list suites), another device
#   make test PYTHON=python3.12               another interpreter for a new .venv (3.11 or newer)
#   make bench TORCH_INDEX=URL                an extra package index for the set-up, such as one with
#                                             CPU-only builds of torch (plain torch for Linux is a
#                                             CUDA download of about 3 GB)
#   make perf BASE=COMMIT                     speed beside that of another commit, in one run

SUITE ?= quick
DEVICE ?= auto
PYTHON ?= python3
TORCH_INDEX ?=
BASE ?=

BIN := .venv/bin
READY := .venv/.ready
DOCS_READY := .venv/.docs-ready
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest
# Compiled files are kept, and apart: where a machine forbids them every process compiles all anew.
KEPT := PYTHONDONTWRITEBYTECODE= PYTHONPYCACHEPREFIX=$(CURDIR)/.venv/compiled
PIP := $(BIN)/python -m pip install --disable-pip-version-check --root-user-action=ignore
EXTRA_INDEX := $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

# make gpu takes a GPU unless told otherwise, and there the Python that is named, as it is: a machine
# with PyTorch for its GPU needs no .venv.
VISIT_DEVICE := $(if $(filter cpu,$(DEVICE)),cpu,cuda)
VISIT_PYTHON := $(if $(and $(filter cuda,$(VISIT_DEVICE)),$(filter-out file,$(origin PYTHON))),$(PYTHON),$(BIN)/python)

.PHONY: bench test shapes report smoke oracle finetune studies tuning perf gpu gpu-wheels quality slow \
  cluster pipelines mutants readme docs docs-test outputs lint fmt clean

bench: $(READY)
	$(BIN)/tiltbench run --suite $(SUITE) --device $(DEVICE)

test: $(READY)
	$(KEPT) $(PYTEST) -n 2 -q

# The shapes in the signatures of the core, checked at run time.
shapes: $(READY)
	$(PYTEST) --jaxtyping-packages=tiltbench,beartype.beartype -n 2 -q \
	  tests/targets/test_processes.py tests/samplers/test_losses.py

report: $(READY)
	$(BIN)/tiltbench score $(SUITE)
	$(BIN)/tiltbench report $(SUITE)

# BASE=COMMIT times the iterations of that commit as well, in turns with those of this tree.
perf: $(READY)
	BASE=$(BASE) $(PYTEST) -m perf -q --benchmark-timer=time.process_time \
	  --benchmark-columns=min,median,max,rounds

# One visit to a GPU, 8 minutes at most and no network: docs/gpu.md.
#   make gpu                                  with what .venv has
#   make gpu PYTHON=python3 COMMIT=abc123     with a Python that has PyTorch for the GPU; no .venv
#   make gpu DEVICE=cpu                       the dry run: tiny sizes, nothing is published
COMMIT ?= $(shell git rev-parse HEAD 2>/dev/null)
SECTIONS ?=
gpu: $(if $(filter $(BIN)/python,$(VISIT_PYTHON)),$(READY))
	$(VISIT_PYTHON) -m tests.gpu --device $(VISIT_DEVICE) --commit "$(COMMIT)" $(SECTIONS)

# What such a machine may lack, into .wheels/, which travels with the tree.
WHEELS_FOR ?= 3.12
gpu-wheels: $(READY)
	$(BIN)/python -m pip download --quiet --disable-pip-version-check $(EXTRA_INDEX) --no-deps \
	  --only-binary=:all: --implementation cp --python-version $(WHEELS_FOR) \
	  $(foreach glibc,17 24 27 28,--platform manylinux_2_$(glibc)_x86_64) --platform manylinux2014_x86_64 \
	  -d .wheels -c constraints.txt $(shell sed 's/ *#.*//' tests/gpu/wheels.txt)

# Four hard targets, about 90 CPU-seconds of training each, five seeds; one at a time, so that they do
# not fight.  Ends with the peers' own runs of 90 CPU-seconds beside ours.
quality: $(READY)
	$(BIN)/tiltbench run --suite quality --device $(DEVICE) --jobs 1
	$(BIN)/tiltbench run --suite quality_funnel --device $(DEVICE) --jobs 1
	$(BIN)/tiltbench study quality
	@cat results/studies/quality/table.md

# Every loss on problems whose every answer is known: two targets in minutes, all of them in hours.
smoke: $(READY)
	$(BIN)/tiltbench run --suite oracle-smoke --device $(DEVICE)

oracle: $(READY)
	$(BIN)/tiltbench run --suite oracle --device $(DEVICE)

# Every fine-tuning method: where the truth is exact (over an hour), and on a trained network (a day and
# more: better in shards, docs/finetune_methods.md).
finetune: $(READY)
	$(BIN)/tiltbench run --suite finetune --device $(DEVICE)
	$(BIN)/tiltbench run --suite finetune_digits --device $(DEVICE)

# Tables and pictures of the studies, into the tracked folder; the suites they read (oracle, physics,
# finetune_digits) must have been run.
studies: $(READY)
	$(BIN)/tiltbench study all --device $(DEVICE) --out results/published/studies

# The example of docs/tuning.md.
tuning: $(READY)
	$(BIN)/tiltbench tune results/published/tuning/small.toml --trials 4
	cp results/small-tuning/tuning.md results/published/tuning/tuning.md

slow: $(READY)
	$(PYTEST) -m slow -q -s

# Real Ray clusters and a real SLURM on this machine; what cannot be had is skipped with a sentence.
cluster: $(READY)
	@$(BIN)/python -c 'import ray' 2>/dev/null || \
	  $(PIP) --quiet $(EXTRA_INDEX) \
	  -c constraints.txt -e '.[cluster]' || echo 'no Ray: its tests are skipped'
	$(PYTEST) -m cluster -q -rs

# Stable Diffusion as a base, on tiny random pipelines; installs the extra `finetune`.
pipelines: $(READY)
	$(PIP) --quiet $(EXTRA_INDEX) \
	  -c constraints.txt -e '.[finetune]'
	$(PYTEST) -m pipelines -q

# Breaks the mathematics line by line and shows which test notices (about 10 minutes).
mutants: $(READY)
	$(BIN)/python tests/tools/mutants.py

# The generated parts of README.md and docs/, from results/published and examples/.
readme: $(READY)
	$(BIN)/python docs/readme.py

# The site, into site/: the documentation, in which a broken link is an error, and in site/published
# a page for every suite, method and target, two minutes of one core.  Nothing is fetched.
docs: $(DOCS_READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	OMP_NUM_THREADS=1 $(BIN)/tiltbench publish --site site/published

# Runs every block of code in README.md and docs/, page by page, and compares what it prints.
docs-test: $(READY)
	$(KEPT) $(PYTEST) -m docs -n 2 -q

# Writes what the blocks print into the pages: PAGES=docs/tutorials/loss.md for one of them.
PAGES ?=
outputs: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python docs/blocks.py $(PAGES)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fmt: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One line a step, and pip's own progress for the download that takes minutes.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'tiltbench needs Python 3.11 or newer: name one with make PYTHON=python3.12'; exit 1; }
	@test -x $(BIN)/python || { echo '[1/3] a virtual environment in .venv ...'; \
	  $(PYTHON) -m venv .venv; }
	@echo '[2/3] torch, the largest download (200 MB, with CUDA about 3 GB: minutes) ...'
	@$(PIP) $(EXTRA_INDEX) -c constraints.txt torch
	@echo '[3/3] the other packages and tiltbench itself (about a minute) ...'
	@$(PIP) --quiet $(EXTRA_INDEX) -c constraints.txt -e '.[dev]'
	@echo 'Set up: .venv/bin/tiltbench --help shows the commands.'
	@touch $@

$(DOCS_READY): $(READY)
	$(PIP) --quiet $(EXTRA_INDEX) \
	  -c constraints.txt -e '.[docs]'
	@touch $@
