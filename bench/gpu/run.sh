#!/usr/bin/env bash
# Checks and times Kvasir on the GPU of this machine: the card, what it can do at most (by PyTorch,
# where that is), kernel tests, tiny golden models, memory checks, and the figures of anchors.cc.
#   bench/gpu/run.sh [stage...]      stages: card ceilings kernels golden sanitizer anchors profile
#                                    serve; by themselves all of them
# KVASIR_BIN names a folder with kvasir, ops_test, cli_test and gpu_anchors; without it they are
# built here by the preset `cuda`.
set -euo pipefail
cd "$(dirname "$0")/../.."

bin=${KVASIR_BIN:-}
if [ -z "$bin" ]; then
  cmake --preset cuda
  cmake --build --preset cuda --target kvasir ops_test cli_test gpu_anchors
  bin=build/cuda/collected
  mkdir -p "$bin"
  cp build/cuda/kvasir build/cuda/src/ops/ops_test build/cuda/src/cli/cli_test \
    build/cuda/bench/gpu_anchors "$bin"
fi
failed=()
figures=$(mktemp)
trap 'rm -f "$figures"' EXIT

stage_card() {
  nvidia-smi --query-gpu=name,driver_version,memory.total,power.limit,clocks.max.sm --format=csv
}

stage_ceilings() {
  python3 bench/gpu/ceilings.py | tee -a "$figures"
}

stage_kernels() {
  "$bin/ops_test" --gtest_brief=1 --gtest_filter='*Cuda*'
}

stage_golden() {
  KVASIR_TEST_DEVICE=cuda "$bin/cli_test" --gtest_brief=1 --gtest_filter='*Device*'
}

stage_sanitizer() {
  local tool
  for tool in memcheck racecheck; do
    KVASIR_TEST_DEVICE=cuda compute-sanitizer --tool "$tool" --error-exitcode 1 \
      "$bin/cli_test" --gtest_brief=1 \
      --gtest_filter='*DeviceGoldenTest.MeetsTheReference/*:DeviceRunnerTest.B*:DeviceRunnerTest.L*:DeviceDraw.*'
  done
}

stage_anchors() {
  "$bin/gpu_anchors" ${ANCHOR_FLAGS:-} | tee -a "$figures"
  nvidia-smi --query-gpu=power.draw,clocks.sm,temperature.gpu --format=csv
  python3 bench/gpu/report.py "$figures"
}

stage_profile() {
  "$bin/gpu_anchors" ${ANCHOR_FLAGS:-} --profile
}

stage_serve() {
  python3 bench/gpu/serve.py "$bin/kvasir" "${MODEL:-default}"
}

stages=("$@")
[ ${#stages[@]} = 0 ] && stages=(card ceilings kernels golden sanitizer anchors profile serve)
for stage in "${stages[@]}"; do
  echo "=== $stage"
  begin=$SECONDS
  "stage_$stage" || failed+=("$stage")
  echo "=== $stage took $((SECONDS - begin)) s"
done
[ ${#failed[@]} = 0 ] || { echo "failed: ${failed[*]}"; exit 1; }
