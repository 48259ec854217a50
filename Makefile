# make serve: build, fetch the default model and serve it.   make test: everything that CI runs.
ARGS ?=

MAKEFLAGS += --no-print-directory

.PHONY: help setup build serve test test-quick test-structured bench bench-serving bench-structured bench-peers lint fmt clean

help:
	@echo "make build    build/release/kvasir"
	@echo "make serve    serve the default model on 127.0.0.1:8000 (ARGS='--port 9000 ...')"
	@echo "make test     install what is missing, build, and run every test"
	@echo "make test-quick  the same without sanitizers and fuzzing"
	@echo "make test-structured  ask for an answer to every JSON schema of tests/structured (minutes)"
	@echo "make bench    run the micro-benchmarks"
	@echo "make bench-serving  measure the cache and the scheduler over HTTP (bench/README.md)"
	@echo "make bench-structured  measure schemas, jump-forward and prompt lookup (ARGS='--rounds 5 ...')"
	@echo "make bench-peers  measure beside llama.cpp (builds it first; ARGS='--rounds 5 ...')"
	@echo "make lint     check layers and format"
	@echo "make fmt      format the sources"

setup:
	@scripts/setup.sh

build: setup
	@PATH="$$PATH:$${CARGO_HOME:-$$HOME/.cargo}/bin" cmake --preset release
	@PATH="$$PATH:$${CARGO_HOME:-$$HOME/.cargo}/bin" cmake --build --preset release --target kvasir

serve: build
	@scripts/fetch_default_model.sh >/dev/null
	@exec build/release/kvasir serve $(ARGS)

test:
	@scripts/test.sh

test-quick:
	@scripts/test.sh setup checks build release

test-structured: build
	@scripts/fetch_default_model.sh >/dev/null
	@.venv/bin/python tests/structured/run.py $(ARGS)

bench: setup
	@scripts/fetch_default_model.sh >/dev/null
	@scripts/test.sh build
	@for b in build/release/bench/*_bench; do echo "== $$b"; $$b || exit 1; done

bench-serving: build
	@scripts/fetch_default_model.sh >/dev/null
	@.venv/bin/python bench/serving/chat_waste.py
	@.venv/bin/python bench/serving/long_prompt_gap.py

bench-structured: build
	@scripts/fetch_default_model.sh >/dev/null
	@.venv/bin/python bench/serving/structured.py --lookup-model "$$(scripts/fetch_qwen_model.sh)" $(ARGS)

bench-peers: build
	@bench/peers/setup.sh
	@.venv/bin/python bench/peers/llama_cpp.py --rounds 15 $(ARGS) "$$(scripts/fetch_default_model.sh)"

lint: setup
	@scripts/test.sh checks

fmt: setup
	@scripts/format.sh

clean:
	rm -rf build
