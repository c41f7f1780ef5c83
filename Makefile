# The developer's verbs; `make help` lists them.
#
# Everything happens in an environment of the project's own, .venv, made with the first Python >= 3.11 that can build
# an extension; PYTHON=/path/to/python chooses another.  Nothing is installed or upgraded outside of it.
# Files named .venv/.* are stamps: what is older than its sources is done again, the rest is quick.

VENV := .venv
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check --quiet
CORE := $(RUN) tools/core_build.py --werror --tests
PYTHON ?=
ARGS ?=

# What the installed package is made of; generated files and compiled ones are its products.
SOURCES := pyproject.toml setup.py $(shell find csrc src tools -type f \
	! -path '*/__pycache__/*' ! -path '*.egg-info/*' ! -name '*.so' ! -name 'generated_*' 2>/dev/null)

# Requirements stand in pyproject.toml alone: $(call requirements,build-system.requires) is a shell command that
# prints those under a dotted name, one a line.
requirements = $(RUN) -c 'import functools, tomllib; \
	print(*functools.reduce(dict.get, "$(1)".split("."), tomllib.load(open("pyproject.toml", "rb"))), sep="\n")'

.DEFAULT_GOAL := help
.PHONY: help demo test fuzz bench check-c check-threads check-sanitize check-arm lint sdist wheel clean

help:  ## list these verbs
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 18

demo: $(VENV)/.package  ## build and train the digits classifier: accuracy, speed, learning curve
	@$(RUN) -m fastbp demo $(ARGS)

test: $(VENV)/.package $(VENV)/.test  ## build and run the Python tests (ARGS="-k name" chooses)
	@$(RUN) -m pytest $(ARGS)

fuzz: $(VENV)/.package $(VENV)/.test  ## 20,000 random training programs, compiled against eager (ARGS=--help)
	@$(RUN) tools/fuzz_programs.py $(ARGS)

bench: $(VENV)/.package  ## run the benchmarks (ARGS=--help lists what they take)
	@$(RUN) -m benchmarks $(ARGS)

check-c: $(VENV)/.python  ## test the C core: optimised, on both kinds of threads, then under ASan and UBSan
	@$(CORE) --out build/check
	@$(CORE) --out build/check --threads pool --folders base --only test_base,test_threads
	@$(CORE) --out build/check-address --sanitize address --threads pool

check-threads: $(VENV)/.python  ## test the C core under ThreadSanitizer
	@$(CORE) --out build/check-threads --sanitize thread

# Tests that measure memory or time, or that start programs in environments of their own, say nothing here.
check-sanitize: $(VENV)/.build $(VENV)/.test  ## the Python tests on an extension under ASan and UBSan (ARGS chooses)
	@echo "building fastbp for the sanitizers in build/sanitize"
	@FASTBP_BUILD_SANITIZE=address $(RUN) setup.py --quiet build --build-lib build/sanitize --build-temp build/sanitize-objects
	@$(call requirements,project.dependencies) | $(PIP) install -r /dev/stdin
	@$(RUN) tools/run_sanitized.py build/sanitize $(ARGS)

check-arm: $(VENV)/.python  ## test the C core's aarch64 build under qemu
	@command -v aarch64-linux-gnu-gcc >/dev/null && command -v qemu-aarch64 >/dev/null || { \
		echo "make check-arm needs a cross compiler and an emulator; on Debian and Ubuntu:" \
		"apt install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user" >&2; exit 1; }
	@$(CORE) --out build/check-arm --target aarch64

lint: $(VENV)/.dev  ## ruff and mypy
	@$(RUN) -m ruff check .
	@$(RUN) -m mypy

sdist: $(VENV)/.dev  ## dist/fastbp-*.tar.gz
	@$(RUN) -m build --no-isolation --sdist

wheel: $(VENV)/.dev  ## dist/fastbp-*.whl for this machine
	@$(PIP) wheel --no-build-isolation --no-deps --wheel-dir dist .

clean:  ## remove everything that the other verbs made
	rm -rf build dist $(VENV) src/*.egg-info src/fastbp/_core*.so src/fastbp/core/generated_*.pxi \
		.pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -exec rm -rf {} +

# ---- the environment ----

# Why a Python will not do, in one line; nothing when it will.
define UNFIT
import importlib.util, os, sys, sysconfig
def has(name): return importlib.util.find_spec(name) is not None
def why():
    if sys.version_info < (3, 11): return "is Python %d.%d, older than 3.11" % sys.version_info[:2]
    if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
        return "lacks Python.h (package python3-dev)"
    if not has("virtualenv") and not (has("venv") and (has("ensurepip") or has("pip"))):
        return "cannot make environments (package python3-venv)"
print(why() or "")
endef
export UNFIT

# Make $(VENV) with the Python in $$1: by venv; where ensurepip is missing, by venv and the Python's own pip, or virtualenv.
define MAKE_VENV
"$$1" -m venv $(VENV) >/dev/null 2>&1 && $(VENV)/bin/python -m pip --version >/dev/null 2>&1 && exit
rm -rf $(VENV)
"$$1" -m venv --without-pip $(VENV) >/dev/null 2>&1 && \
	"$$1" -m pip --quiet --python $(VENV)/bin/python install pip >/dev/null 2>&1 && exit
rm -rf $(VENV)
"$$1" -m virtualenv --quiet $(VENV)
endef
export MAKE_VENV

$(VENV)/.python:
	@for python in $(or $(PYTHON),python3.13 python3.12 python3.11 python3 /usr/bin/python3); do \
		unfit=$$($$python -c "$$UNFIT" 2>/dev/null) || { echo "$$python: does not run" >> $(VENV).log; continue; }; \
		if [ -n "$$unfit" ]; then echo "$$python: $$unfit" >> $(VENV).log; continue; fi; \
		rm -rf $(VENV); \
		echo "making $(VENV) with $$python"; \
		if sh -c "$$MAKE_VENV" sh "$$(command -v $$python)"; then found=yes; break; fi; \
		echo "$$python: could not make an environment" >> $(VENV).log; \
	done; \
	if [ -z "$$found" ]; then \
		echo "No Python here can build fastbp; it takes Python >= 3.11 with headers and venv:" >&2; \
		sed 's/^/  /' $(VENV).log >&2; rm -f $(VENV).log; \
		echo "On Debian and Ubuntu: apt install python3-dev python3-venv. Or set PYTHON=/path/to/python." >&2; exit 1; \
	fi; rm -f $(VENV).log
	@touch $@

$(VENV)/.build: $(VENV)/.python pyproject.toml
	@$(call requirements,build-system.requires) | $(PIP) install -r /dev/stdin
	@touch $@

# Python files that a change removed must not live on in the wheel; the compiled extension there is reused while fresh.
$(VENV)/.package: $(VENV)/.build $(SOURCES)
	@echo "building and installing fastbp in $(VENV)"
	@find build/lib.* -name '*.py*' -delete 2>/dev/null || true
	@$(PIP) install --no-build-isolation --force-reinstall --no-deps .
	@$(call requirements,project.dependencies) | $(PIP) install -r /dev/stdin
	@touch $@

$(VENV)/.test: $(VENV)/.python pyproject.toml
	@$(call requirements,project.optional-dependencies.test) | $(PIP) install -r /dev/stdin
	@touch $@

$(VENV)/.dev: $(VENV)/.build
	@$(call requirements,project.optional-dependencies.dev) | $(PIP) install -r /dev/stdin
	@$(call requirements,project.dependencies) | $(PIP) install -r /dev/stdin
	@touch $@
