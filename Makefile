# make run [ARGS="--share --port 7861"]   install what is missing and start the app
# make test                               install, check the style, run every test
# make lint                               check the style only
# make bench                              print the measurements in benchmarks/
# make soak [ARGS="--clients 40"]         many users at once on the app; prints what they saw
# PYTHON=... chooses the Python that .venv is made with.

PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
TORCH := $(shell grep -E '^torch(vision)?[<>=]' requirements.txt)
BENCHMARKS := $(filter-out benchmarks/real_size.py,$(wildcard benchmarks/*.py))
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# SAM 2's optional CUDA kernel needs a compiler and is not used.
export SAM2_BUILD_CUDA := 0

.PHONY: run test lint bench soak chromium
.DELETE_ON_ERROR:

run: $(VENV)/.installed
	$(BIN)/python app.py $(ARGS)

# Two processes, each with a thread of its own: most tests have no use for two threads.
test: $(VENV)/.installed-dev chromium lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: $(VENV)/.installed-dev
	@for file in $(BENCHMARKS); do echo "== $$file"; $(BIN)/python $$file || exit 1; done

soak: $(VENV)/.installed-dev
	$(BIN)/python tests/soak.py $(ARGS)

$(BIN)/python:
	@for python in $(PYTHON) python3.11 python3; do \
	  command -v $$python >/dev/null || continue; \
	  $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || continue; \
	  found=$$python; \
	  $$python -c 'import ensurepip, venv' 2>/dev/null || continue; \
	  exec $$python -m venv $(VENV); \
	done; \
	if [ -n "$$found" ]; then \
	  echo "$$found cannot make virtual environments; install its venv module first" \
	    "(on Debian, as root: apt-get install python3-venv)." >&2; \
	else \
	  echo "Python 3.11 or newer is needed; install it or name it with PYTHON=..." >&2; \
	fi; \
	exit 1

# sam2 is built from source and asks for torch while it is built. Without build isolation it takes
# the torch installed just before; with it pip would download a second one and throw it away.
$(VENV)/.installed: requirements.txt | $(BIN)/python
	$(BIN)/pip install $(foreach range,$(TORCH),'$(range)') setuptools wheel
	$(BIN)/pip install --no-build-isolation -r requirements.txt
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt requirements-train.txt $(VENV)/.installed
	$(BIN)/pip install -r requirements-dev.txt
	@touch $@

chromium:
	@if [ -n "$$CHROMIUM" ]; then exit 0; fi; \
	for name in chromium chromium-browser google-chrome google-chrome-stable \
	    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"; do \
	  command -v "$$name" >/dev/null && exit 0; \
	done; \
	if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then root=; \
	elif command -v apt-get >/dev/null && command -v sudo >/dev/null; then root=sudo; \
	else \
	  echo "The browser tests need Chromium: install it (on Debian, as root: apt-get install" \
	    "chromium) or give its path in the variable CHROMIUM." >&2; \
	  exit 1; \
	fi; \
	echo "Installing Chromium for the browser tests."; \
	$$root apt-get -o DPkg::Lock::Timeout=300 update -q && \
	$$root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install \
	  -y -q --no-install-recommends chromium
