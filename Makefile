# The ways into this project. Everything runs in .venv, which the first use prepares; nothing outside the checkout is touched
# except the user cache (the embedded LLM, 253 MB) and pip's own.
PYTHON ?= python3
ARGS ?=
DATA ?=
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help demo test slow lint types docs bench constraints clean venv-demo venv-test venv-slow python

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: venv-demo ## Watch a frozen text LLM classify photographs through words
	@$(BIN)/icl-vision demo $(ARGS)

test: venv-test ## The fast tests (ARGS="tests/test_images.py -x" for some of them)
	@$(BIN)/python -m pytest $(ARGS)

slow: venv-slow ## The slow tests: the real LLM, exports, packaging, a local Ray cluster
	@$(BIN)/python -m pytest -m slow $(ARGS)

lint: venv-test ## ruff (rules and format of imports) and mypy --strict
	@$(BIN)/python -m ruff check .
	@$(MAKE) --no-print-directory types

types: venv-test ## mypy alone: the package, then exporters/ in a run of its own
	@$(BIN)/python -m mypy
	@$(BIN)/python -m mypy exporters

docs: venv-test ## Write docs/cli.md anew, from --help of every command
	@$(BIN)/python .ci/cli_docs.py

bench: venv-test ## The measurements that need no data of yours (DATA=DIR adds few-shot accuracy on its class folders)
	@set -e; for script in $(wildcard benchmarks/bench_*.py); do echo "== $$script"; $(BIN)/python "$$script" $(ARGS); done
	@if [ -n "$(DATA)" ]; then $(BIN)/python benchmarks/few_shot.py --data "$(DATA)" --out runs/few_shot.json $(ARGS); fi

constraints: venv-slow ## Resolve every dependency anew and write constraints.txt
	@$(BIN)/python .ci/constraints.py $(ARGS)

clean: ## Remove what builds and tests leave behind (.venv stays; `rm -rf .venv` for that)
	@rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

python:
	@command -v $(PYTHON) >/dev/null || { echo "icl-vision needs Python 3.11 or newer; no '$(PYTHON)' was found. Name one: make PYTHON=/path/to/python3.12 demo" >&2; exit 1; }

venv-demo: python
	@$(PYTHON) .ci/bootstrap.py demo

venv-test: python
	@$(PYTHON) .ci/bootstrap.py test

venv-slow: python
	@$(PYTHON) .ci/bootstrap.py slow
