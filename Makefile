# Every target makes the environment it needs: on a fresh clone `make run` and `make test` just work.
# An environment that exists already can be used with `make test VENV=path`.
VENV ?= .venv
PYTHON ?= python3
PY = $(VENV)/bin/python
STAMP = $(VENV)/.requirements-installed

.PHONY: run test test-all check format bench example-run demo-model venv

run: $(STAMP)  ## start the app
	$(PY) app.py

test: $(STAMP)  ## the default suite
	$(PY) -m pytest -n 2 --dist loadfile $(PYTEST_ARGS)

test-all: $(STAMP)  ## also the slow tests and those in a browser
	$(PY) -m pytest -m "not gpu and not checkpoint and not long" $(PYTEST_ARGS)

check: $(STAMP)  ## formatting, lint, types
	$(PY) -m ruff format --check . && $(PY) -m ruff check . && $(PY) -m mypy core profiling benchmarks training

format: $(STAMP)  ## apply the formatting and the safe fixes
	$(PY) -m ruff check --fix . && $(PY) -m ruff format .

bench: $(STAMP)  ## our engine beside transformers, with the table of bars (an hour; BENCH_ARGS=--quick)
	$(PY) -m benchmarks speed $(BENCH_ARGS)

example-run: $(STAMP)  ## record again the run that the Profile tab opens with
	rm -rf assets/runs
	$(PY) -m profiling run --engine eager,compile --decoding greedy,speculative --out assets/runs

# FSDD=folder adds the Free Spoken Digit Dataset. Slow voices read less: with --engines the quick ones go on.
TRAIN = $(PY) -m training
QUICK = hibari,pico,flite
demo-model: $(STAMP)  ## train the bundled model from nothing (a night; it goes on where it was stopped)
	$(PY) -m pip install --quiet -r requirements-training.txt
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

venv: $(STAMP)  ## only make the environment

$(STAMP): requirements.txt requirements-dev.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; (3, 11) <= v < (3, 15) or sys.exit(f"{sys.executable} is Python {v.major}.{v.minor}; 3.11 to 3.14 is needed: make PYTHON=python3.12 ...")'
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet -r requirements-dev.txt
	@touch $@
