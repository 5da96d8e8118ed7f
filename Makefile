# make setup           an environment in .venv, from the package registry, no compiler needed
# make demo            procedural totes, Mask R-CNN trained and evaluated on all three subsets, one table
PYTHON ?= python3
VENV   ?= .venv
TORCH  ?= torch==2.13.0

PY    := $(VENV)/bin/python
STAMP := $(VENV)/.armbench-mmdet
CODE  := armbench_mmdet configs tests tools _armbench_mmdet_hint.py

DEMO_CONFIG := configs/mask_rcnn/mask-rcnn_r18-w32_fpn-64_minibench.py
DEMO_DIR    := work_dirs/demo

.PHONY: help setup demo test test-slow lint format bench
help:            ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  variables       PYTHON=$(PYTHON)  VENV=$(VENV) (an existing environment works)  TORCH='$(TORCH)'"

setup: $(STAMP)  ## make .venv and install everything (again: instant)
$(STAMP): pyproject.toml constraints.txt
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -c 'import torch' 2>/dev/null || $(PY) -m pip install '$(TORCH)'
	grep -v '^torch==' constraints.txt > $(VENV)/requirements.txt
	MMCV_WITH_OPS=0 $(PY) -m pip install --no-deps -r $(VENV)/requirements.txt
	$(PY) -m pip install --no-deps -e .
	$(PY) tools/doctor.py
	touch $@

demo: setup      ## train and evaluate on procedural totes (about 7 minutes on two cores)
	$(PY) tools/train.py $(DEMO_CONFIG) --work-dir $(DEMO_DIR)
	$(PY) tools/test.py $(DEMO_CONFIG) $(DEMO_DIR) --work-dir $(DEMO_DIR) --subset all

test: setup      ## the tests, without the slow ones
	$(PY) -m pytest -m 'not slow and not gpu'

test-slow: setup ## the slow tests
	$(PY) -m pytest -m 'slow and not gpu'

lint: setup      ## ruff and mypy
	$(VENV)/bin/ruff check $(CODE)
	$(VENV)/bin/ruff format --check $(CODE)
	$(VENV)/bin/mypy

format: setup    ## let ruff put the code in order
	$(VENV)/bin/ruff check --fix $(CODE)
	$(VENV)/bin/ruff format $(CODE)

bench: setup     ## ours against the stock stack, as ratios; wants an idle machine
	$(PY) tools/benchmark.py all
