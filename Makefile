.DEFAULT_GOAL := help
.PHONY: help setup test check clean
SHELL := /bin/bash
RUN := . docker/env.sh &&

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 16

setup: ## install everything into .venv (a few minutes once, then nothing)
	@bash docker/setup.sh

check: setup ## lint, format, types, layers
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy genodl_spark jobs
	@.venv/bin/lint-imports --no-cache

test: check ## all checks and tests
	@$(RUN) .venv/bin/python -m pytest tests -q

clean: ## remove .venv
	rm -rf .venv
