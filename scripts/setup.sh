#!/usr/bin/env bash
# Installs what building and testing need on Debian 12: packages, a Rust toolchain, a Python
# environment in .venv, a Node client. Does nothing, quickly, where all of it is there.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(
  g++ cmake ninja-build ccache mold pkg-config git curl ca-certificates
  clang-19 libclang-rt-19-dev
  libboost1.81-dev libabsl-dev libssl-dev libcurl4-openssl-dev
  libspdlog-dev libfmt-dev nlohmann-json3-dev libcli11-dev libtomlplusplus-dev
  prometheus-cpp-dev libxxhash-dev libzmq3-dev cppzmq-dev
  libgrpc++-dev libprotobuf-dev protobuf-compiler protobuf-compiler-grpc
  libgtest-dev libgmock-dev libbenchmark-dev librapidcheck-dev
  python3 python3-venv
)
rust_wanted=1.87
rust_installed=1.95.0

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

missing_packages() {
  local installed
  installed=$(dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' | sed -n 's/^ii  *//p' | sort)
  comm -23 <(printf '%s\n' "$@" | sort) <(printf '%s\n' "$installed")
}

install_packages() {
  local missing
  missing=$(missing_packages "$@")
  [ -z "$missing" ] && return
  echo "setup: installing" $missing
  as_root apt-get update -qq
  # shellcheck disable=SC2086 # one word a package
  DEBIAN_FRONTEND=noninteractive as_root apt-get install -y -qq --no-install-recommends $missing
}

rust_is_new_enough() {
  local version
  version=$(cargo --version 2>/dev/null | cut -d' ' -f2) || return 1
  [ "$(printf '%s\n' "$rust_wanted" "$version" | sort -V | head -1)" = "$rust_wanted" ]
}

setup_rust() {
  export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
  rust_is_new_enough && return
  echo "setup: installing Rust $rust_installed"
  if command -v rustup >/dev/null; then
    rustup toolchain install "$rust_installed" --profile minimal -c rustfmt
    rustup default "$rust_installed"
  else
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs |
      sh -s -- -y -q --profile minimal -c rustfmt --default-toolchain "$rust_installed"
  fi
}

setup_python() {
  local stamp=.venv/requirements.txt
  cmp -s scripts/requirements.txt "$stamp" && return
  echo "setup: making .venv"
  python3 -m venv .venv
  .venv/bin/pip install -q --disable-pip-version-check -r scripts/requirements.txt
  cp scripts/requirements.txt "$stamp"
}

# The official Node client, for a test. Debian's npm is a package of its own, others bring it along.
setup_node() {
  local folder=tests/e2e/node
  { command -v node && command -v npm; } >/dev/null || install_packages nodejs npm
  cmp -s "$folder/package-lock.json" "$folder/node_modules/.stamp" && return
  echo "setup: installing the Node client"
  npm ci --prefix "$folder" --silent --no-audit --no-fund
  cp "$folder/package-lock.json" "$folder/node_modules/.stamp"
}

install_packages "${packages[@]}"
setup_rust
setup_python
setup_node
