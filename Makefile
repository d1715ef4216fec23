# make run      the gateway with the built-in demo engine, on 127.0.0.1:8000
# make test     all tests
# make check    format, lint, types, floors, every file in conf/, all tests
# make bench    all measurements, into bench/results/ (half an hour; needs a quiet machine); QUICK=1 tries them out
# make install  the command `llmproxy` in .venv/bin; compiled, where there is a C compiler (some minutes)

VENV ?= .venv
BIN := $(VENV)/bin
# That of the environment that is there already, so that what is compiled fits it.
PYTHON ?= $(firstword $(wildcard $(BIN)/python) python3)
# Each version of Python needs modules of its own.
TAG := $(shell $(PYTHON) -c 'import sys; print(sys.implementation.cache_tag)')
BUILD := build/venv-$(TAG)
MINUTES ?= 30
# What runs for each request is compiled to C, if that can be done here; `COMPILE=` leaves it as it is.
COMPILE ?= $(shell command -v cc > /dev/null && $(PYTHON) -c "$(HAS_HEADERS)")
HAS_HEADERS := import pathlib, sysconfig; print('yes' * pathlib.Path(sysconfig.get_path('include'), 'Python.h').exists())

# Where `install-program` and `install-systemd` put things.
PREFIX ?= /opt/llmproxy
DESTDIR ?=
UNITDIR ?= /lib/systemd/system
SYSUSERSDIR ?= /usr/lib/sysusers.d
CONFDIR ?= /etc/llmproxy

METADATA := setup.cfg pyproject.toml proxy/__init__.py

.DEFAULT_GOAL := help
.PHONY: help run install install-dev can-compile compile interpreted test check lint conf docs soak bench install-program install-systemd clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

run: $(VENV)/.installed
	$(BIN)/llmproxy run --demo

# --- installing ---------------------------------------------------------------

install: $(VENV)/.installed
	@$(if $(COMPILE),$(MAKE) --no-print-directory compile || { $(uncompile); \
		echo "not compiled: llmproxy runs all the same but a small request costs twice as much"; },$(uncompile))

install-dev: $(VENV)/.installed-dev

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.11 …")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BIN)/python $(METADATA)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[speed]'
	@touch $@

$(VENV)/.installed-dev: $(BIN)/python $(METADATA)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[speed,redis,sql,dev]'
	@touch $(VENV)/.installed $@

$(VENV)/.installed-bench: $(BIN)/python $(METADATA)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[speed,redis,bench]'
	@touch $(VENV)/.installed $@

# In place, with tools of its own; `make interpreted` takes it back.
compile: build/.compiled-$(TAG)

# What all others need is put in place last, so that no part of them runs without the rest. They are as old
# as the beginning: what is changed meanwhile is not in them.
build/.compiled-$(TAG): $(BUILD)/.ready $(wildcard proxy/*.py proxy/*/*.py)
	@echo "compiling what runs for each request (make COMPILE= leaves it as it is)"
	$(uncompile)
	@touch build/.began
	LLMPROXY_COMPILE=1 $(BUILD)/bin/python setup.py --quiet build_ext --parallel 4 2> build/compile.log \
		|| { cat build/compile.log; echo 'This did not compile; `make install COMPILE=` does without.'; exit 1; }
	cd build/lib.*-$(TAG) && find proxy -name '*.so' ! -name '$(SHARED)' -exec cp --parents {} ../.. \;
	cp build/lib.*-$(TAG)/proxy/$(SHARED) proxy
	find proxy -name '*.so' -exec touch -r build/.began {} +
	$(BUILD)/bin/python -c 'import proxy.server' || { $(uncompile); rm -rf build/lib.*; exit 1; }
	@touch -r build/.began $@

interpreted:
	$(uncompile)

can-compile:
	@echo $(COMPILE)

SHARED := byte_path__mypyc.*.so
uncompile = rm -f build/.compiled-* proxy/$(SHARED) && find proxy -name '*.so' -delete

# Other tools, or a list of other modules: nothing made before is of use.
$(BUILD)/.ready: $(METADATA) setup.py
	rm -rf build/lib* build/temp*
	$(PYTHON) -m venv $(BUILD)
	$(BUILD)/bin/python -m pip install --quiet --disable-pip-version-check '.[speed,compile]'
	$(BUILD)/bin/python -m pip uninstall --quiet --yes llmproxy
	@touch $@

# --- checking -----------------------------------------------------------------

test: install-dev
	$(BIN)/python -m pytest -q

# `make test check` runs the tests once.
check: lint conf test

lint: install-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

conf: install-dev
	for file in $(filter-out conf/keys.example.yaml, $(wildcard conf/*.yaml)); do \
		$(BIN)/llmproxy check $$file || exit; \
	done

# What is generated from the schema; a test fails when it is stale.
docs: install-dev
	$(BIN)/llmproxy schema > conf/llmproxy.schema.json
	$(BIN)/python -c 'from proxy.config import reference; print(reference(), end="")' > docs/config.md

soak: install-dev
	$(BIN)/python tests/soak.py --minutes $(MINUTES)

BENCHES := $(patsubst bench/%.py, bench-%, $(wildcard bench/*.py))

bench: $(BENCHES)

# QUICK=1: whether everything runs, on a minute or two; its figures say nothing and go to build/bench.
QUICK_adapters := --sizes 16 --formats qwen3_xml
QUICK_affinity := --sessions 60 --endpoints 4 --seeds 1
QUICK_footprint := --starts 1
QUICK_growth := --rounds 1 --sizes 1
QUICK_limits_gateway := --rounds 1 --seconds 0.5
QUICK_translate := --sizes 16 --formats qwen3_xml
QUICK_workers := --rounds 1 --streams 50

.PHONY: $(BENCHES)
.NOTPARALLEL: bench
$(BENCHES): bench-%: $(VENV)/.installed-bench
	@echo "== bench/$*.py"
	$(if $(QUICK),BENCH_RESULTS=build/bench )$(BIN)/python bench/$*.py $(if $(QUICK),$(QUICK_$*))

# --- as a service ---------------------------------------------------------------

# The program, in a virtual environment of its own (which cannot be moved, so there is no DESTDIR).
install-program: $(if $(COMPILE),$(BUILD)/.ready)
	rm -rf build/lib build/wheel && find . -path './build/lib.*' -name '*.py' -delete
	$(PYTHON) -m venv $(PREFIX)
	$(PREFIX)/bin/python -m pip install --quiet --disable-pip-version-check '.[speed,redis,sql]'
	$(if $(COMPILE),LLMPROXY_COMPILE=1 $(BUILD)/bin/python -m pip wheel --quiet --disable-pip-version-check \
		--no-build-isolation --no-deps --wheel-dir build/wheel .)
	$(if $(COMPILE),$(PREFIX)/bin/python -m pip install --quiet --disable-pip-version-check \
		--no-deps --force-reinstall build/wheel/llmproxy-*.whl)

# The units, the user and a first configuration, which is never overwritten.
install-systemd:
	install -d $(DESTDIR)$(UNITDIR) $(DESTDIR)$(SYSUSERSDIR) $(DESTDIR)$(CONFDIR)
	install -d -m 0700 $(DESTDIR)$(CONFDIR)/credentials
	sed 's|/opt/llmproxy/|$(PREFIX)/|; s|/etc/llmproxy/|$(CONFDIR)/|g' systemd/llmproxy.service \
		> $(DESTDIR)$(UNITDIR)/llmproxy.service
	chmod 0644 $(DESTDIR)$(UNITDIR)/llmproxy.service
	install -m 0644 systemd/llmproxy.socket $(DESTDIR)$(UNITDIR)/llmproxy.socket
	install -m 0644 systemd/llmproxy.sysusers $(DESTDIR)$(SYSUSERSDIR)/llmproxy.conf
	install -m 0644 conf/llmproxy.schema.json $(DESTDIR)$(CONFDIR)/llmproxy.schema.json
	test -e $(DESTDIR)$(CONFDIR)/llmproxy.yaml || \
		install -m 0644 conf/llmproxy.yaml $(DESTDIR)$(CONFDIR)/llmproxy.yaml

clean: interpreted
	rm -rf $(VENV) build dist *.egg-info .coverage .mypy_cache .ruff_cache .pytest_cache \
		.hypothesis .import_linter_cache
	find proxy tests bench -name __pycache__ -type d -prune -exec rm -rf {} +
