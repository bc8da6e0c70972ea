# Each of these does all the set-up on a fresh machine that has Python 3.11 or newer.
#
#   make demo            segment a real image
#   make test            the tests
#   make check           format, lint, types, floors, tests
#   make browser-test    the page of `attractor correct`, in Chromium
#   make napari-test     the plug-in in a window of napari, which needs xvfb
#   make bench           speed and scale; BENCH="--data FOLDER" takes images of your own for the folder of files
#   make docs            the documentation as web pages, in docs/_build/html

PYTHON ?= python3
BIN := .venv/bin
SETUP := pyproject.toml constraints.txt
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet

.PHONY: demo test check browser-test napari-test bench docs clean

demo: .venv/installed
	$(BIN)/attractor demo

test: .venv/installed-dev
	$(BIN)/python -m pytest -n 2

check: .venv/installed-dev
	scripts/check

browser-test: .venv/installed-dev
	scripts/chromium
	$(BIN)/python -m pytest tests/web/test_browser.py

napari-test: .venv/installed-dev
	$(PIP) PyQt6 -c constraints.txt
	xvfb-run -a -s "-screen 0 1600x1000x24" $(BIN)/python -m pytest tests/napari

bench: .venv/installed-dev
	$(BIN)/python -m benchmarks $(BENCH)

docs: .venv/installed-dev
	$(BIN)/python -m sphinx -q -n -W --keep-going docs docs/_build/html
	@echo "The pages are in docs/_build/html; begin with index.html."

clean:
	rm -rf .venv

$(BIN)/python:
	$(PYTHON) -m venv .venv

# torch goes first and alone, at the version of constraints.txt
.venv/torch: $(SETUP) | $(BIN)/python
	$(PIP) "$$(grep '^torch==' constraints.txt)"
	touch $@

.venv/installed: .venv/torch
	$(PIP) -e . -c constraints.txt
	touch $@

.venv/installed-dev: .venv/torch
	$(PIP) -e '.[train,report,formats,track,export,openvino,scale,hdf5,serve,docs,dev]' -c constraints.txt
	touch $@
