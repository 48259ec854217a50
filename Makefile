# make serve: build, fetch the default model and serve it.   make test: everything that CI runs.
ARGS ?=

MAKEFLAGS += --no-print-directory

.PHONY: help setup build serve test test-quick bench lint fmt clean

help:
	@echo "make build    build/release/kvasir"
	@echo "make serve    serve the default model on 127.0.0.1:8000 (ARGS='--port 9000 ...')"
	@echo "make test     install what is missing, build, and run every test"
	@echo "make test-quick  the same without sanitizers and fuzzing"
	@echo "make bench    run the micro-benchmarks"
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

bench: setup
	@scripts/test.sh build
	@for b in build/release/bench/*_bench; do echo "== $$b"; $$b || exit 1; done

lint: setup
	@scripts/test.sh checks

fmt: setup
	@scripts/format.sh

clean:
	rm -rf build
