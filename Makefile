# Every target makes the environment it needs: on a fresh clone `make run` and `make test` just work.
# An environment that exists already can be used with `make test VENV=path`.
VENV ?= .venv
PYTHON ?= python3
PY = $(VENV)/bin/python
APP = $(VENV)/.app-installed
DEV = $(VENV)/.dev-installed
VERSIONS = -c constraints.txt

# Held back on purpose: every figure in docs/ and assets/runs was measured with this release.
PINS = torch==2.14.1
UV = uv>=0.13,<0.14

.PHONY: run test test-newest test-all check format bench gpu-check example-run demo-model demo-sibling venv lock help
.DELETE_ON_ERROR:

run: $(APP)  ## start the app
	$(PY) app.py

test: $(DEV)  ## the default suite
	$(PY) -m pytest -n 2 --dist loadfile $(PYTEST_ARGS)

test-newest:  ## the default suite on the newest releases the ranges admit, in .venv-newest
	rm -f .venv-newest/.*-installed
	ORACLE_REQUIRED=1 $(MAKE) test VENV=.venv-newest VERSIONS="--upgrade --upgrade-strategy eager"

test-all: $(DEV)  ## also the slow tests and those in a browser
	$(PY) -m pytest -m "not gpu and not checkpoint and not long" $(PYTEST_ARGS)

check: $(DEV)  ## formatting, lint, types
	$(PY) -m ruff format --check . && $(PY) -m ruff check . && $(PY) -m mypy core app profiling benchmarks training

format: $(DEV)  ## apply the formatting and the safe fixes
	$(PY) -m ruff check --fix . && $(PY) -m ruff format .

bench: $(DEV)  ## our engine beside transformers, with the table of bars (an hour; BENCH_ARGS=--quick)
	$(PY) -m benchmarks speed $(BENCH_ARGS)

gpu-check:  ## every stage on a CUDA device, at most 8 minutes, no network; the installed python3 where there is no environment
	$(or $(wildcard $(PY)),$(PYTHON)) -m benchmarks gpu-check $(GPU_ARGS)

example-run: $(DEV)  ## record again the run that the Profile tab opens with
	rm -rf assets/runs
	$(PY) -m profiling run --engine eager,compile --decoding greedy,speculative --out assets/runs

# FSDD=folder adds the Free Spoken Digit Dataset. Slow voices read less: with --engines the quick ones go on.
TRAIN = $(PY) -m training
QUICK = hibari,pico,flite
demo-model: $(DEV)  ## train the bundled model from nothing (a night; it goes on where it was stopped)
	$(PY) -m pip install --quiet -r requirements-training.txt $(VERSIONS)
	$(TRAIN) corpus $(if $(FSDD),--fsdd $(FSDD)) --clips 13000
	$(TRAIN) corpus --parts synthetic --clips 20000 --engines $(QUICK),festival
	$(TRAIN) corpus --parts words --clips 9000 --engines $(QUICK),festival,piper
	$(TRAIN) corpus --parts words --clips 18000 --engines $(QUICK)
	$(TRAIN) corpus --parts digits --clips 6000 --engines $(QUICK),pico_accent,festival
	$(TRAIN) corpus --parts digits --clips 1320 --engines kokoro,piper,espeak
	$(TRAIN) corpus --parts outside --clips 200
	$(TRAIN) encoder --joined --bf16
	$(TRAIN) decoder --bf16
	$(TRAIN) align
	$(VENV)/bin/torchrun --nproc-per-node 2 -m training joint --bf16
	$(TRAIN) pack
	$(TRAIN) calibrate --limit 160
	$(TRAIN) evaluate

demo-sibling: $(DEV)  ## train the bundled CTC model from the bundled one and the same corpus (an hour)
	$(VENV)/bin/torchrun --nproc-per-node 2 -m training ctc --bf16
	$(TRAIN) ctc-pack
	$(TRAIN) evaluate --model tiny,tiny-ctc --systems greedy

venv: $(DEV)  ## only make the environment

lock: $(PY)  ## write constraints.txt again (LOCK_ARGS=--upgrade: with the newest releases)
	$(PY) -m pip install --quiet '$(UV)'
	printf '%s\n' $(PINS) | $(PY) -m uv pip compile --quiet --universal --python-version 3.11 --no-annotate \
		--custom-compile-command 'make lock' $(LOCK_ARGS) -o constraints.txt \
		requirements.txt requirements-dev.txt requirements-training.txt -

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' Makefile

$(PY):
	@$(PYTHON) -c 'import sys; v = sys.version_info; (3, 11) <= v < (3, 15) or sys.exit(f"{sys.executable} is Python {v.major}.{v.minor}; 3.11 to 3.14 is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(APP): requirements.txt constraints.txt | $(PY)
	@echo "Installing the app's packages into $(VENV): 6.5 GB on disk with torch's CUDA build (Linux), less elsewhere; a few minutes"
	$(PY) -m pip install --quiet $(VERSIONS) -r requirements.txt
	@touch $@

$(DEV): requirements-dev.txt $(APP)
	@echo "Installing what the tests and tools need besides into $(VENV): 0.4 GB"
	$(PY) -m pip install --quiet $(VERSIONS) -r requirements-dev.txt
	@touch $@
