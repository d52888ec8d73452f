# make demo    install what is needed into .venv and show it working (under two minutes once installed; with
#              DEMO=--train, or where no model is bundled, a tiny one is trained first: under five)
# make test    lint, format check, the documentation site, the tests that take seconds, and those that depend on the
#              processor once more as on one without AVX-512
# make help    the other targets

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
THREADS ?= 1
WORKERS ?= auto
DEMO ?=
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo docs test test-fast test-slower-list test-avx2 test-slow test-gpu test-browser web dist lint format clean

help:
	@echo "make demo       show it working: pictures and sound in demo/"
	@echo "make test       lint, documentation site, and the tests that take seconds"
	@echo "make test-fast  the tests that take a tenth of a second: while editing"
	@echo "make docs       the documentation site, into site/"
	@echo "make test-avx2  the tests that depend on the processor, as on one without AVX-512"
	@echo "make test-slow  the tests that take minutes"
	@echo "make test-gpu   the tests that need a CUDA device"
	@echo "make test-browser  exported models and both pages in headless Chromium (needs Chromium and npm)"
	@echo "make web        the static page with the bundled model, into web/dist/ (needs npm)"
	@echo "make dist       build sdist and wheels, check them, and try the wheel in a fresh environment"
	@echo "make lint       ruff: errors and format"
	@echo "make format     ruff: put the format right"
	@echo "make clean      remove .venv, demo/ and caches"

# Installed once for each set of extras, and again when what is asked for changes; what is there is left as it is.
$(VENV)/.ready-%: pyproject.toml constraints.txt
	@echo "installing into $(VENV) (with torch, 5 GB: some minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[$*]'
	touch $@

demo: $(VENV)/.ready-demo
	$(BIN)/wesep demo -o demo --overwrite $(DEMO)

lint: $(VENV)/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.ready-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# A link that leads nowhere or a docstring that cannot be read fails the build.
docs: $(VENV)/.ready-dev
	NO_MKDOCS_2_WARNING=1 OMP_NUM_THREADS=$(THREADS) $(BIN)/mkdocs build --strict --quiet

test: lint docs
	OMP_NUM_THREADS=$(THREADS) $(BIN)/python -m pytest -n $(WORKERS) -m 'not slow and not gpu'
	$(MAKE) test-avx2

# Without the tests in tests/slower_tests.txt, which `make test-slower-list` writes anew.
test-fast: $(VENV)/.ready-dev
	OMP_NUM_THREADS=$(THREADS) $(BIN)/python -m pytest -p tests.fast -n $(WORKERS) -m 'not slow and not gpu'

test-slower-list: $(VENV)/.ready-dev
	OMP_NUM_THREADS=$(THREADS) $(BIN)/python -m pytest -p tests.fast --record-slower -n $(WORKERS) -m 'not slow and not gpu'

# oneDNN, ATen and MKL keep to AVX2, so bfloat16 has no LSTM and sums round otherwise; a processor without AVX-512 runs the
# same tests twice.
test-avx2: $(VENV)/.ready-dev
	ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2 OMP_NUM_THREADS=$(THREADS) \
		$(BIN)/python -m pytest -n $(WORKERS) -m 'processor and not slow and not gpu'

test-slow: $(VENV)/.ready-dev
	OMP_NUM_THREADS=$(THREADS) $(BIN)/python -m pytest -m 'slow and not gpu'

test-gpu: $(VENV)/.ready-dev
	$(BIN)/python -m pytest -m gpu

# Once it is installed, `make test` runs these tests, too.
ORT_WEB := build/web/node_modules/onnxruntime-web
$(ORT_WEB)/package.json:
	npm install --prefix build/web --ignore-scripts --no-audit --no-fund --silent onnxruntime-web@1.30.0

# The static page (docs/web.md), which any host can serve.
WEB_MODEL := build/web_model
WEB_MODULES := web/node_modules/.package-lock.json
$(WEB_MODULES): web/package-lock.json
	npm ci --prefix web --ignore-scripts --no-audit --no-fund --silent
	touch $@

web: $(VENV)/.ready-onnx $(WEB_MODULES)
	OMP_NUM_THREADS=$(THREADS) $(BIN)/wesep export base --fp16 --stream -o $(WEB_MODEL) --overwrite
	npm run build --prefix web --silent

# Playwright drives the pages; it is no part of the extra `dev`, because it brings 165 MB of Node.js.
$(VENV)/.ready-playwright: $(VENV)/.ready-dev
	@$(BIN)/python -m pip install --quiet 'playwright>=1.50'
	touch $@

test-browser: $(VENV)/.ready-playwright $(ORT_WEB)/package.json $(WEB_MODULES)
	OMP_NUM_THREADS=$(THREADS) $(BIN)/python -m pytest -rs -m browser tests/export tests/ui tests/web

# The tools have an environment of their own: no torch is needed to build. DIST_VENV_FROM=.venv takes the dependencies of
# the wheel from there instead of installing 5 GB: a rehearsal, no check of a release.
DIST_TOOLS := build/dist_tools
DIST_VENV_FROM ?=
$(DIST_TOOLS)/.ready: Makefile
	$(PYTHON) -m venv $(DIST_TOOLS)
	$(DIST_TOOLS)/bin/python -m pip install --quiet 'build>=1.2' 'twine>=6.1'
	touch $@

dist: $(DIST_TOOLS)/.ready
	OMP_NUM_THREADS=$(THREADS) $(DIST_TOOLS)/bin/python packaging/release_checks.py dist \
		$(if $(DIST_VENV_FROM),--venv-from $(DIST_VENV_FROM))

clean:
	rm -rf $(VENV) build dist demo site web/dist web/node_modules .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
