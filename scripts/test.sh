#!/usr/bin/env bash
# Runs the named stages of the test suite, or all of them, and prints what each took:
#   setup checks build cuda release asan tsan fuzz
set -euo pipefail
cd "$(dirname "$0")/.."

jobs=${JOBS:-$(nproc)}
fuzz_seconds=${FUZZ_SECONDS:-60}
tsan_tests=(base_test kv_test engine_test router_test cluster_test api_test)
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:abort_on_error=1}
export TSAN_OPTIONS=${TSAN_OPTIONS:-halt_on_error=1:suppressions=$PWD/scripts/tsan_suppressions.txt}

stage_setup() {
  scripts/setup.sh
  scripts/fetch_default_model.sh
}

stage_checks() {
  scripts/check_layers.py
  scripts/format.sh --check
}

stage_build() {
  cmake --preset release >/dev/null
  cmake --build --preset release -j "$jobs"
}

# Compiles what is for NVIDIA GPUs, where the toolkit is or scripts/setup_cuda.sh has put its parts.
stage_cuda() {
  local root=${KVASIR_CUDA_ROOT:-${XDG_CACHE_HOME:-$HOME/.cache}/kvasir/cuda-13.0/nvidia/cu13}
  [ -x "$root/bin/nvcc" ] || root=/usr/local/cuda
  if [ ! -x "$root/bin/nvcc" ]; then
    echo "skipped: no CUDA toolkit is here; scripts/setup_cuda.sh fetches one"
    return
  fi
  cmake --preset cuda -DKVASIR_CUDA_ROOT="$root" >/dev/null
  cmake --build --preset cuda -j "$jobs" --target kvasir_device kvasir_ops
}

stage_release() {
  ctest --test-dir build/release --output-on-failure -j "$jobs"
  .venv/bin/python -m pytest tests --timeout 300
}

# Builds and runs unit tests with a preset's sanitizers: those that are named, or all.
sanitized() {
  local preset=$1 tests=("${@:2}")
  cmake --preset "$preset" >/dev/null
  if [ ${#tests[@]} = 0 ]; then
    mapfile -t tests < <(ninja -C "build/$preset" -t targets all |
      sed -n '/^cmake_/d; s/^\(\w*_test\): phony$/\1/p')
  fi
  cmake --build --preset "$preset" -j "$jobs" --target "${tests[@]}"
  local pattern
  pattern=$(IFS='|' && echo "^(${tests[*]})\$")
  ctest --test-dir "build/$preset" --output-on-failure -j "$jobs" -R "$pattern"
}

stage_asan() { sanitized asan; }
stage_tsan() { sanitized tsan "${tsan_tests[@]}"; }

# Runs one fuzz target for $fuzz_seconds; what it printed is shown if it found something.
fuzz() {
  local name=$1 folder=build/asan/fuzz
  local corpus=$folder/corpus/$name log=$folder/$name.log
  mkdir -p "$corpus"
  if "$folder/$name" -max_total_time="$fuzz_seconds" -print_final_stats=1 \
    -artifact_prefix="$folder/$name-" "$corpus" "fuzz/corpus/${name%_fuzz}" >"$log" 2>&1; then
    echo "$name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") runs"
  else
    cat "$log"
    return 1
  fi
}

stage_fuzz() {
  local targets=(fuzz/*_fuzz.cc)
  targets=("${targets[@]#fuzz/}")
  targets=("${targets[@]%.cc}")
  cmake --preset asan >/dev/null
  cmake --build --preset asan -j "$jobs" --target "${targets[@]}"
  export -f fuzz
  export fuzz_seconds
  printf '%s\n' "${targets[@]}" | xargs -P "$jobs" -I{} bash -c 'fuzz {}'
}

stages=("$@")
[ ${#stages[@]} = 0 ] && stages=(setup checks build cuda release asan tsan fuzz)
summary=()
for stage in "${stages[@]}"; do
  echo "=== $stage"
  begin=$SECONDS
  "stage_$stage"
  took=$((SECONDS - begin))
  echo "=== $stage passed in $took s"
  summary+=("$(printf '%-8s %5d s' "$stage" "$took")")
done
printf '%s\n' "all stages passed" "${summary[@]}"
