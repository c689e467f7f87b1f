# Greenroom: `make demo` and `make test` are all a new machine needs; Python 3.11 or newer with its venv module is the
# only thing that must be there. `make help` lists the targets.

VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

# Which Python makes the environment. The tests' own version comes first.
CANDIDATES := python3.11 python3.12 python3.13 python3.14 python3 python
FIT        := import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))
PYTHON     ?= $(shell for p in $(CANDIDATES); do $$p -c '$(FIT)' >/dev/null 2>&1 && { command -v $$p; break; }; done)

# More arguments for pip, for example an index with CPU-only builds of torch:
#   make PIP_ARGS='--extra-index-url https://download.pytorch.org/whl/cpu' demo
PIP_ARGS ?=
# The Python with training/requirements.txt, for eval-speech.
SPEECH_PYTHON ?= /tmp/training/bin/python
# Arguments of the command that a target runs: make test ARGS='-k cli', make serve ARGS='--port 9000'
ARGS ?=

.DEFAULT_GOAL := venv
.PHONY: eval eval-gate eval-speech bench-render bench-gate bench-dependability bench-forecasts bench-monitoring venv demo serve test lint format bench soak clean help

venv: $(STAMP)  ## make the environment in .venv (again only when the dependencies change)

$(STAMP): pyproject.toml constraints.txt
	@test -n '$(PYTHON)' || { \
	  echo 'error: no Python 3.11 or newer with its venv module was found (looked for: $(CANDIDATES)).' >&2; \
	  echo 'hint: install one (Debian, Ubuntu: apt install python3 python3-venv), or name it: make PYTHON=/path/to/python3.11' >&2; \
	  exit 1; }
	@$(PYTHON) -c '$(FIT)' || { \
	  echo 'error: $(PYTHON) is not a Python 3.11 or newer with its venv module.' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP)  ## make demo.mp4 from the bundled samples, over HTTP, through a service of its own
	$(BIN)/greenroom demo $(ARGS)

serve: $(STAMP)  ## run the service until Ctrl-C
	$(BIN)/greenroom serve $(ARGS)

# A file's tests stay together in one process. Every service in them starts several processes and watches clocks, which
# is why more than four at once are none too few.
test: $(STAMP)  ## run all tests, on all cores (one after the other: ARGS='-n 0')
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(STAMP)  ## check style, types and the house rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict app greenroom
	$(BIN)/lint-imports

format: $(STAMP)  ## put the code into the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)  ## measure on this machine (minutes; not part of the tests)
	$(BIN)/python -m benchmarks $(ARGS)

soak: $(STAMP)  ## every fault in every phase, long histories of the store, random requests, faults and kills (not part of the tests)
	$(BIN)/python -m pytest tests/faults/test_every_fault.py --whole --timeout 900
	$(BIN)/python -m pytest tests/store/test_machine.py tests/store/test_threads.py \
	  tests/notify/test_told_and_usable.py tests/api/test_openapi.py --long --timeout 3600
	$(BIN)/python -m benchmarks.soak $(ARGS)

bench-dependability: $(STAMP)  ## measure recovery, cancellation and the queue (minutes; not part of the tests)
	$(BIN)/python -m benchmarks.dependability $(ARGS)

bench-forecasts: $(STAMP)  ## measure how good expected ends and Retry-After are (minutes; not part of the tests)
	$(BIN)/python -m benchmarks.forecasts $(ARGS)

bench-monitoring: $(STAMP)  ## measure what the health checks cost a render (minutes; not part of the tests)
	$(BIN)/python -m benchmarks.monitoring $(ARGS)

bench-render: $(STAMP)  ## measure the renderer and the share of each stage (minutes; not part of the tests)
	$(BIN)/python -m benchmarks.render $(ARGS)

bench-gate: $(STAMP)  ## measure what judging costs beside rendering (minutes; not part of the tests)
	$(BIN)/python -m benchmarks.gate $(ARGS)

eval: $(STAMP)  ## measure the picture's quality and write docs/quality.md (ten minutes; not part of the tests)
	$(BIN)/python -m evaluation.picture $(ARGS)

eval-gate: $(STAMP)  ## calibrate the quality gate: render, break and judge videos (half an hour; not part of the tests)
	$(BIN)/python -m evaluation.gate $(ARGS)
	$(BIN)/python -m evaluation.passing $(ARGS)

eval-speech:  ## measure the speech network for docs/quality.md (takes what training/README.md tells)
	$(SPEECH_PYTHON) training/eval_articulation.py $(ARGS)

clean:  ## remove the environment and everything that tools left behind
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*##  *\(.*\)/  make \1@\2/p' $(MAKEFILE_LIST) | while IFS=@ read -r t d; do printf '%-24s %s\n' "$$t" "$$d"; done
