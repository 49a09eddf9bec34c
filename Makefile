# The commands of README.md. `make` alone lists them; `make setup` is what run, demo and test share.
VENV := .venv
BIN := $(VENV)/bin
PYTHON_FITS := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))
# The first Python on the path that fits; looked for only when .venv is made.
PYTHON ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11,$(shell $(name) -c '$(PYTHON_FITS)' 2>/dev/null && echo $(name))))
# uv installs in parallel and with a tenth of pip's CPU time; pip knows mirrors and proxies of pip.conf that uv does not.
INSTALL = $(BIN)/uv pip install --quiet --python $(BIN)/python $(1) || $(BIN)/pip install --quiet $(1)

.PHONY: help run demo test check fuzz without bench bench-engine setup lock clean lint types contract tidy
help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

run: setup  ## start everything, show one payment's whole life, stay up until Ctrl-C
	@$(BIN)/payments run

demo: setup  ## drive payments through everything and verify each hop: make demo ARGS="--payments 200"
	@$(BIN)/payments demo $(ARGS)

test: setup $(VENV)/.development  ## the whole suite against real servers: make test ARGS="-k settle"
	@$(BIN)/pytest $(ARGS)

check: $(VENV)/.development  ## format, lint, types, import contract, tidy rules: fast, no servers
	@$(MAKE) --no-print-directory --jobs=2 --keep-going --output-sync=target types lint contract tidy
	@echo "All checks passed."

lint: $(VENV)/.development
	@$(BIN)/ruff format --quiet --check . || { echo "run: $(BIN)/ruff format ."; exit 1; }
	@$(BIN)/ruff check --quiet .

types: $(VENV)/.development
	@$(BIN)/mypy

contract: $(VENV)/.development
	@$(BIN)/lint-imports --cache-dir .cache/import_linter

tidy: $(VENV)/.development
	@$(BIN)/pytest --quiet tests/tidy

# Of each operation; with the boundary values of every field and chains of operations that makes over 10,000 requests.
fuzz: $(VENV)/.development  ## 10,000 requests from the interface's own document, in memory: make fuzz EXAMPLES=50
	@PYTHONPATH=. $(BIN)/python -m tests.unit.api.fuzzing $(or $(EXAMPLES),700)

without: $(VENV)/.development  ## take away each endpoint, code and magic token in turn; some test must fail: make without ARGS="--only refund"
	@PYTHONPATH=. $(BIN)/python -m tests.without $(ARGS)

bench: setup  ## measure: make bench ARGS="create --rate 50", ARGS=life, ARGS=api, ARGS=decide, ARGS=idle
	@$(BIN)/payments bench $(or $(ARGS),create)

bench-engine: setup  ## measure the engine against its peers, on brokers of its own: make bench-engine ARGS=--short
	@$(BIN)/payments bench engine $(ARGS)
	@$(BIN)/payments bench engine --nodes 3 --only ours --only kafka-streams $(ARGS)
	@$(BIN)/payments bench engine --keys 10000000 --only ours --only kafka-streams $(ARGS)

# Bytecode is made while the jars come over the network: several services start at once later, and would each make it.
setup: $(VENV)/.compiler  ## .venv with the payments command, the servers' jars fetched and verified, hot modules compiled
	@{ $(BIN)/python -m ops.compiled.build; \
	test -e $(VENV)/.bytecode || $(BIN)/python -m compileall -q -j 2 $(VENV)/lib >$(VENV)/.bytecode 2>&1; } & \
	$(BIN)/payments fetch; status=$$?; wait; exit $$status

$(VENV)/.runtime: ops/locks/installer.txt ops/locks/runtime.txt pyproject.toml
	@$(or $(PYTHON),false) -c '$(PYTHON_FITS)' 2>/dev/null || \
	{ echo "payments needs Python 3.11, 3.12 or 3.13$(if $(PYTHON),; $(PYTHON) is not one,): install one, or name it with make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	{ echo "$(PYTHON) cannot make virtual environments: install its venv module (on Debian: apt-get install python3-venv)" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { echo "Setting up $(VENV)."; $(PYTHON) -m venv --clear $(VENV); }
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r ops/locks/installer.txt
	@$(call INSTALL,--require-hashes -r ops/locks/runtime.txt)
	@$(call INSTALL,--no-deps --no-build-isolation -e .)
	@touch $@

# The machine's C compiler, or one that comes as a wheel of 100 MB.
$(VENV)/.compiler: $(VENV)/.runtime ops/locks/compiler.txt ops/locks/zig.txt
	@$(call INSTALL,--require-hashes -r ops/locks/compiler.txt)
	@command -v cc >/dev/null || $(call INSTALL,--require-hashes -r ops/locks/zig.txt)
	@touch $@

$(VENV)/.development: $(VENV)/.compiler ops/locks/development.txt
	@$(call INSTALL,--require-hashes -r ops/locks/development.txt)
	@touch $@

# Resolved for the oldest Python that is supported; markers keep one file valid for 3.11 to 3.13.
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate
lock: $(VENV)/.runtime  ## resolve the dependencies of pyproject.toml again
	echo uv | $(LOCK) - -o ops/locks/installer.txt
	$(LOCK) pyproject.toml -o ops/locks/runtime.txt
	echo mypy | $(LOCK) -c ops/locks/runtime.txt - -o ops/locks/compiler.txt
	echo ziglang | $(LOCK) - -o ops/locks/zig.txt
	$(LOCK) --extra dev -c ops/locks/runtime.txt -c ops/locks/compiler.txt pyproject.toml -o ops/locks/development.txt

clean:  ## remove .venv and caches; the stack's data stays (payments down --wipe removes it)
	rm -rf $(VENV) .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis .schemathesis build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
