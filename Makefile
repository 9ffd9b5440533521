# `make demo` and `make test` work as the very first command in a fresh clone.

UV := $(shell command -v uv 2>/dev/null)
ifeq ($(shell $(UV) --version >/dev/null 2>&1 && echo ok),)
UV := .tools/bin/uv
BOOTSTRAP := .tools/bin/uv
endif
RUN := $(UV) run --frozen

.PHONY: demo test lint types imports unit install bench docs clean

demo: install
	$(RUN) vaultctl demo

test: lint types imports unit

install: .venv/.installed

.venv/.installed: pyproject.toml uv.lock $(BOOTSTRAP)
	$(UV) sync --frozen --quiet
	@touch $@

.tools/bin/uv:
	@echo "uv is not installed: putting a copy into .tools"
	@python3 -m venv .tools && .tools/bin/pip install --quiet --disable-pip-version-check uv

lint: install
	$(RUN) ruff check .
	$(RUN) ruff format --check .

types: install
	$(RUN) mypy

imports: install
	$(RUN) lint-imports

unit: install
	$(RUN) pytest

bench: install
	$(RUN) python bench/run.py

docs: install
	$(RUN) python tools/build_docs.py

clean:
	rm -rf .venv .tools dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
