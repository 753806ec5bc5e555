# Needs Python 3.11 or 3.12 and nothing else. Everything is installed into .venv/.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
TORCH ?= torch==2.13.0
BIN = .venv/bin
export HF_HUB_OFFLINE ?= 1

.PHONY: help setup demo demo-short test test-slow test-gpu bench lint clean
help:
	@echo "make demo        train a small video model from nothing, and write runs/demo/report.html"
	@echo "make test        the tests;   make test-slow: the ones that take minutes;   make test-gpu: those for a CUDA device"
	@echo "make bench       speed and memory beside diffusers' models, into benchmarks/results/"
	@echo "make lint        linter and type check"
	@echo "make setup       only install into .venv/ (TORCH=... for another build of torch)"

setup: .venv/installed
.venv/installed: pyproject.toml
	$(PYTHON) -c "import sys; v = sys.version_info[:2]; sys.exit(v < (3, 11) and f'Python 3.11 or newer is needed, $(PYTHON) is {v[0]}.{v[1]}; make PYTHON=...')"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet '$(TORCH)' -e '.[dev]'
	touch $@

demo: setup
	$(BIN)/video-gen demo

demo-short: setup
	$(BIN)/video-gen demo --short --output runs/demo-short

test: setup
	$(BIN)/python -m pytest

test-slow: setup
	$(BIN)/python -m pytest -m slow

test-gpu: setup
	$(BIN)/python -m pytest -m gpu

bench: setup
	$(BIN)/pip install --quiet '$(TORCH)' -e '.[bench]'
	$(BIN)/video-gen bench

lint: setup
	$(BIN)/ruff check video_gen tests
	$(BIN)/ruff format --check video_gen tests
	$(BIN)/pyright

clean:
	rm -rf .venv
