# `make serve` and `make test` set up everything they need in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TENSORFLOW ?= tensorflow-cpu
# TensorFlow Serving's stubs, for tests. What they depend on is a second TensorFlow, so pip is not asked to install that.
TFS_STUBS := tensorflow-serving-api
PORT ?= 8080
STAMP := $(VENV)/.installed

.PHONY: serve test lint types imports wheel check bench bench-optimize bench-tune bench-peers bench-smoke smoke-run smoke-optimize smoke-tuning \
	docs protos clean

serve: $(STAMP)  ## Train a small network on handwritten digits and serve it
	$(BIN)/python examples/digits/train.py .cache/digits
	@echo "try: $(BIN)/python examples/digits/ask.py --url http://127.0.0.1:$(PORT)"
	$(BIN)/penstock serve .cache/digits/digits.keras --name digits --port $(PORT)

test: $(STAMP)  ## All tests
	$(BIN)/python -m compileall -q src
	$(BIN)/pytest -n 2 --dist loadgroup $(TESTS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

imports: $(STAMP)
	$(BIN)/lint-imports

wheel: $(STAMP)  ## Build the wheel, install it into a clean environment, serve from it
	$(BIN)/python tools/check_wheel.py

check: lint types imports test wheel bench-smoke  ## What CI runs

bench: $(STAMP)  ## Measure against the peers, rewrite docs/performance.md (needs wrk, and linux-perf for the profile)
	$(BIN)/python -m benchmarks.run --json benchmarks/results/latest.json
	-$(BIN)/python -m benchmarks.profile
	-$(BIN)/python -m benchmarks.profile --grpc
	$(BIN)/python -m benchmarks.report
	$(BIN)/python tools/generate_docs.py

bench-optimize: $(STAMP)  ## Optimize and serve a zoo of models against TensorFlow, rewrite docs/performance.md (needs wrk)
	$(BIN)/python -m benchmarks.optimize
	-$(BIN)/python -m benchmarks.roofline
	-$(BIN)/python -m benchmarks.xla
	$(BIN)/python -m benchmarks.report

bench-tune: $(STAMP)  ## Tune three models, measure every setting beside it, rewrite docs/performance.md (takes two hours)
	$(BIN)/python -m benchmarks.tuning
	$(BIN)/python -m benchmarks.tuning --replay
	$(BIN)/python -m benchmarks.report

bench-peers: $(STAMP)  ## Measure against every peer in each format, rewrite docs/performance.md (needs wrk and h2load)
	$(BIN)/python -m benchmarks.side_by_side
	$(BIN)/python -m benchmarks.report

bench-smoke: smoke-run smoke-optimize smoke-tuning  ## That the benchmarks run; their figures are not looked at

smoke-run: $(STAMP)
	$(BIN)/python -m benchmarks.run --smoke --peers none --json .cache/smoke.json

smoke-optimize: $(STAMP)
	$(BIN)/python -m benchmarks.optimize --smoke --json .cache/optimize-smoke.json

smoke-tuning: smoke-run  # after it: the models are exported there
	$(BIN)/python -m benchmarks.tuning --smoke --json .cache/tuning-smoke.json --out .cache/tuning-smoke

docs: $(STAMP)  ## Rewrite the generated pages
	$(BIN)/python tools/generate_docs.py

protos: $(STAMP)
	$(BIN)/python tools/generate_protos.py

clean:
	rm -rf $(VENV) .cache dist build

$(STAMP): pyproject.toml Makefile
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]" $(TENSORFLOW)
	$(BIN)/python -m pip install --quiet --no-deps $(TFS_STUBS)
	touch $(STAMP)
