#!/usr/bin/env bash
# Formats the C++ and Rust sources; with --check, only says which are not formatted.
set -euo pipefail
cd "$(dirname "$0")/.."

mapfile -t files < <(git ls-files -co --exclude-standard '*.h' '*.cc' '*.cu' '*.cuh')
cargo_fmt=(cargo fmt --manifest-path bridge/Cargo.toml)
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"

if [ "${1:-}" = --check ]; then
  .venv/bin/clang-format --dry-run -Werror "${files[@]}"
  "${cargo_fmt[@]}" --check
  echo "format: ${#files[@]} C++ files and the bridge are formatted"
else
  .venv/bin/clang-format -i "${files[@]}"
  "${cargo_fmt[@]}"
fi
