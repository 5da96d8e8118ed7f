# make setup           an environment in .venv, from the package registry, no compiler needed
# make demo            procedural totes, both models trained and evaluated on all three subsets, one report
PYTHON ?= python3
VENV   ?= .venv
TORCH  ?= torch==2.13.0

PY    := $(VENV)/bin/python
PEERS := .venv-peers
STAMP := $(VENV)/.armbench-mmdet
CODE  := armbench_cli.py armbench_mmdet armbench_runtime configs docs tests tools

DEMO    := mask_rcnn/mask-rcnn_r18-w32_fpn-64_minibench mask2former/mask2former_r18-w32_q30_4e_minibench
# Shell's words for --amp where torch computes in bfloat16 on this CPU.
BF16     = $$($(PY) -c 'from armbench_mmdet.engine.levers import has_bfloat16; print("--amp" if has_bfloat16() else "")')
BACKBONE := work_dirs/$(notdir $(firstword $(DEMO)))/iter_620.pth
RESULTS := mask_rcnn/mask-rcnn_r18-w32_fpn-64_3k_minibench-2k mask2former/mask2former_r18-w32_q30_6k_minibench-2k

# $(call run,CONFIGS,REPORT,OPTIONS): train one after the other, for the second starts from the first, test side by side, report.
# The options are the first one's: the small Mask2Former is slower in bfloat16.
define run
@set -e; options=$(3); for config in $(1); do \
  $(PY) tools/train.py configs/$$config.py --work-dir work_dirs/$$(basename $$config) $$options; options=; \
done
@$(MAKE) --no-print-directory -j2 $(addprefix test-of/,$(1))
@$(PY) tools/report.py $(addprefix work_dirs/,$(notdir $(1))) --out $(2)
endef
test-of/%:
	@OMP_NUM_THREADS=1 $(PY) tools/test.py configs/$*.py work_dirs/$(notdir $*) --subset all

.PHONY: help setup demo minibench-results shift-results fraction-results corruption-results test test-slow test-peers test-gpu lint format docs docs-generated bench
help:            ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  variables              PYTHON=$(PYTHON)  VENV=$(VENV) (an existing environment works)  TORCH='$(TORCH)'"

setup: $(STAMP)  ## make .venv and install everything (again: instant)
$(STAMP): pyproject.toml constraints.txt
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -c 'import torch' 2>/dev/null || $(PY) -m pip install '$(TORCH)'
	grep -v '^torch==' constraints.txt > $(VENV)/requirements.txt
	MMCV_WITH_OPS=0 $(PY) -m pip install --no-deps -r $(VENV)/requirements.txt
	$(PY) -m pip install --no-deps --no-build-isolation -e .
	$(PY) tools/doctor.py || { test $$? = 2 && echo 'warning: set-up is complete; see the lines marked ! above'; }
	touch $@

demo: setup      ## train, evaluate and report on procedural totes (six to seven minutes on two cores)
	$(call run,$(DEMO),work_dirs/report,$(BF16))

minibench-results: setup ## the longer recipes behind the README's table (over an hour on two cores)
	$(call run,$(RESULTS),work_dirs/minibench-report)

# Where the demo's and the ablations' Mask2Former start.
$(BACKBONE): | setup
	$(PY) tools/train.py configs/$(firstword $(DEMO)).py

shift-results: $(BACKBONE) ## what helps against the two shifts, on procedural totes: docs/shift.md (resumes; skips what docs/results holds)
	$(PY) tools/ablate.py configs/shift/mask-rcnn_minibench-shift.py --workers 2
	$(PY) tools/ablate.py configs/shift/mask2former_minibench-shift.py --workers 2 --only baseline final zoom_out copy_paste

fraction-results: setup ## what 1, 5, 10 and 100 % of the training pictures reach, and their curve
	$(PY) tools/ablate.py configs/shift/mask-rcnn_minibench-fractions.py --workers 2
	$(PY) tools/ablate.py configs/shift/mask2former_minibench-fractions.py --workers 2
	$(PY) tools/report.py work_dirs/ablations/*-fractions/*_seed0 --out work_dirs/report-fractions

corruption-results: demo ## the demo's models on corrupted pictures, and their heat maps
	@set -e; for config in $(DEMO); do $(PY) tools/test.py configs/$$config.py work_dirs/$$(basename $$config) --corruptions; done
	$(PY) tools/report.py $(addprefix work_dirs/,$(notdir $(DEMO))) --out work_dirs/report-corruptions

test: setup      ## the tests, without the slow ones
	$(PY) -m pytest -m 'not slow and not gpu and not peers'

test-slow: setup ## the slow tests
	$(PY) -m pytest -m 'slow and not gpu and not peers'

# Operators, models, converters and a short training beside torchvision and transformers.
test-peers:      ## the same models elsewhere, in .venv-peers (6 GB): equal outputs, torchvision's operators
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install -q --no-deps -r constraints-peers.txt
	$(MAKE) --no-print-directory setup VENV=$(PEERS)
	$(PEERS)/bin/python -m pytest -m 'not slow and not gpu' tests/ops tests/models tests/convert/test_converted_weights.py \
		tests/launch/test_launch.py

test-gpu: setup  ## what to run first on a machine with a GPU: one table of what works, how fast, in how much memory
	$(PY) -m pytest -q -s -m gpu tests

lint: setup      ## ruff and mypy
	$(VENV)/bin/ruff check $(CODE)
	$(VENV)/bin/ruff format --check $(CODE)
	$(VENV)/bin/mypy

format: setup    ## let ruff put the code in order
	$(VENV)/bin/ruff check --fix $(CODE)
	$(VENV)/bin/ruff format $(CODE)

docs: setup      ## the site in build/site, with the API reference; needs its own packages, which it installs
	$(PY) -m pip install -q --no-deps -r docs/requirements.txt
	$(PY) docs/architecture.py --check
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build -q --strict -d build/site

docs-generated: setup ## what the docs take from code and results: two pictures and the schema of the result file
	$(PY) docs/architecture.py
	$(PY) docs/shift.py
	$(PY) -c 'import json, msgspec; from armbench_mmdet.evaluation.result import Result; \
		print(json.dumps(msgspec.json.schema(Result), indent=2, ensure_ascii=False))' > docs/result-file.schema.json

bench: setup     ## ours against the stock stack, as ratios; wants an idle machine
	$(PY) tools/benchmark.py all
