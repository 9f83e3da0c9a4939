# make demo | test | test-system | screenshots | check | serve STUDIES=… | clean      (Python 3.11 or 3.12; everything lives in .venv)
SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
HOST ?= 127.0.0.1
PORT ?= 8000
STUDIES ?=
PYTHON ?= $(shell for p in python3 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' >/dev/null 2>&1 && { echo "$$p"; break; }; done)
JOBS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); echo $$((n < 4 ? n : 4)))
RUNTIME := $(VENV)/.installed-runtime
DEV := $(VENV)/.installed-dev
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: help demo test test-system screenshots check serve install clean

help:
	@echo "make demo                 six questions to a real server; writes demo-out/contact-sheet.png"
	@echo "make serve STUDIES=DIR    serve a folder of DICOM files or other images (or a DICOMweb URL) on http://$(HOST):$(PORT)"
	@echo "make test                 pytest with coverage, in JOBS=$(JOBS) processes of about 2 GB each"
	@echo "make test-system          OHIF and the pages in headless Chromium, with a real Orthanc (installs Debian's packages if missing)"
	@echo "make screenshots          the pictures of docs/images, by the same means"
	@echo "make check                ruff and mypy --strict"

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "medsegr needs Python 3.11 or 3.12 and none was found: install one, or name it with PYTHON=/path/to/python3.12." >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' || { echo "medsegr needs Python 3.11 or 3.12; $(PYTHON) is not one of them: name another with PYTHON=/path/to/python3.12." >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)

$(RUNTIME): requirements.txt pyproject.toml | $(BIN)/python
	@echo "Installing the pinned packages into $(VENV); the first time takes some minutes."
	$(PIP_INSTALL) -e .
	@touch $@

$(DEV): $(RUNTIME)
	$(PIP_INSTALL) -e '.[dev]'
	@touch $@

install: $(RUNTIME)

demo: $(RUNTIME)
	$(BIN)/python demo/run.py --out demo-out

ifeq ($(strip $(STUDIES)),)
serve:
	@echo "Say what to serve: make serve STUDIES=/path/to/images (a folder of DICOM files or other images, or a DICOMweb URL)." >&2; exit 1
else
serve: $(RUNTIME)
	$(BIN)/python -m monailabel.main start_server --app apps/medsegr --studies "$(STUDIES)" --host "$(HOST)" --port "$(PORT)"
endif

test: $(DEV)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --cov --cov-report=term

test-system: $(DEV)
	tests/system/install.sh
	$(PIP_INSTALL) -e '.[system]'
	$(BIN)/python -m pytest -m system --durations=10 tests/system

screenshots: $(DEV)
	tests/system/install.sh
	$(PIP_INSTALL) -e '.[system]'
	MEDSEGR_SCREENSHOTS=docs/images $(BIN)/python -m pytest -m system tests/system/test_screenshots.py

check: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) demo-out .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache *.egg-info
