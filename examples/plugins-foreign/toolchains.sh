#!/bin/sh
# Installs what the plugins here are built with, as far as it is missing: clang and
# Rust's library for WebAssembly as the distribution has them, the AssemblyScript
# compiler and its SDK from npm.
set -eu
cd "$(dirname "$0")"
missing=
for tool in clang-19 wasm-ld-19; do
  command -v $tool >/dev/null || missing="clang-19 lld-19"
done
# rust-lld is a link to a linker that the package of the library only recommends.
[ -d /usr/lib/rustlib/wasm32-unknown-unknown ] && [ -x /usr/bin/rust-lld ] || missing="$missing rustc libstd-rust-dev-wasm32 lld-14"
if command -v npm >/dev/null; then :; else missing="$missing nodejs npm"; fi
if [ -n "$missing" ]; then
  # shellcheck disable=SC2086
  timeout 300 apt-get update && DEBIAN_FRONTEND=noninteractive timeout 600 apt-get install -y --no-install-recommends $missing
fi
[ -d assemblyscript/node_modules/assemblyscript ] || (cd assemblyscript && timeout 300 npm ci --no-audit --no-fund)
