# Needs Python 3.11 or newer and nothing else. Everything is installed into .venv/.
SUITS = import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do $$p -c '$(SUITS)' 2>/dev/null && echo $$p && break; done)
TORCH ?= torch==2.13.0
BIN = .venv/bin
export HF_HUB_OFFLINE ?= 1
PIP = $(BIN)/python -m pip -qq --disable-pip-version-check --no-input

# a process a core, each with a thread of its own, and the tests of a file in one
TOGETHER ?= -n logical --maxprocesses 4 --dist loadfile

.PHONY: help setup studio play test-web demo demo-short test test-slow test-gpu bench lint clean
help:
	@echo "make studio      create, steer, watch and look through videos, runs, data and models, in the browser"
	@echo "make play        walk through the shipped world, which a network makes, in the browser"
	@echo "make demo        train a small video model from nothing, and write runs/demo/report.html"
	@echo "make test        the tests;   make test-slow: the ones that take long;   make test-gpu: those for a CUDA device"
	@echo "make test-web    the tests of the pages, in a Chromium that is installed if there is none"
	@echo "make bench       speed and memory beside diffusers' models, into benchmarks/results/"
	@echo "make lint        linter and type check"
	@echo "make setup       only install into .venv/ (TORCH=... for another build of torch)"

setup: .venv/installed
.venv/installed: pyproject.toml
	@[ -n "$(PYTHON)" ] || { echo "setup: no Python 3.11 or newer found; install one, or name it: make PYTHON=/path/to/python3" >&2; exit 2; }
	@$(PYTHON) -c '$(SUITS)' || { echo "setup: PYTHON=$(PYTHON) is no Python 3.11 or newer; name one: make PYTHON=/path/to/python3" >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "setup: $(PYTHON) has no venv module; on Debian and Ubuntu: apt install python3-venv" >&2; exit 2; }
	@echo "setup: installing into .venv/ with $(PYTHON); a few minutes"
	@$(PYTHON) -m venv .venv
	@$(PIP) install '$(TORCH)' -e '.[dev]'
	@touch $@

studio: setup
	$(BIN)/video-gen studio

play: setup
	$(BIN)/video-gen play

demo: setup
	$(BIN)/video-gen demo

demo-short: setup
	$(BIN)/video-gen demo --short --output runs/demo-short

test: setup
	$(BIN)/python -m pytest $(TOGETHER)

test-slow: setup
	$(BIN)/python -m pytest -m slow

# In a Chromium of this machine, or one that playwright or the system's packages bring; where none can be had, that is said.
test-web: setup
	@$(BIN)/python tests/browsing.py
	$(BIN)/python -m pytest $(TOGETHER) -m "web and not gpu and not slow" -rs

test-gpu: setup
	$(BIN)/python -m pytest -m gpu

bench: setup
	$(PIP) install '$(TORCH)' -e '.[bench]'
	$(BIN)/video-gen bench

lint: setup
	$(BIN)/ruff check video_gen tests
	$(BIN)/ruff format --check video_gen tests
	$(BIN)/pyright

clean:
	rm -rf .venv
