#!/bin/sh
# build.sh LANGUAGE FILE builds the usher in a language. It exits with 3, and says what is
# missing, where the toolchain is not there: see toolchains.sh.
set -eu
case "${2:?}" in /*) out=$2 ;; *) out=$PWD/$2 ;; esac
cd "$(dirname "$0")"
missing() { echo "$1 is missing: toolchains.sh installs it" >&2; exit 3; }
case "$1" in
c)
  command -v clang-19 >/dev/null && command -v wasm-ld-19 >/dev/null || missing "clang-19 with lld-19"
  clang-19 --target=wasm32 -O2 -Wall -Wextra -Wno-unused-parameter -Werror -nostdlib -ffreestanding -fno-builtin \
    -Wl,--no-entry -Wl,-z,stack-size=16384 -o "$out" c/*.c
  ;;
rust)
  # Whichever rustc has the target: the distribution's, or one before it in the PATH.
  for rustc in rustc /usr/bin/rustc; do
    root=$($rustc --print sysroot 2>/dev/null) || continue
    [ -d "$root/lib/rustlib/wasm32-unknown-unknown/lib" ] || continue
    command -v rust-lld >/dev/null || ls "$root"/lib/rustlib/*/bin/rust-lld >/dev/null 2>&1 || continue
    exec $rustc --edition 2021 --crate-name usher --crate-type cdylib --target wasm32-unknown-unknown -D warnings \
      -C opt-level=s -C lto -C panic=abort --remap-path-prefix "$PWD"=. -o "$out" rust/usher.rs
  done
  missing "rustc with its linker and its library for wasm32-unknown-unknown"
  ;;
assemblyscript)
  [ -x assemblyscript/node_modules/.bin/asc ] || missing "AssemblyScript"
  cd assemblyscript && npm run --silent build -- "$out"
  ;;
*) echo "build.sh c|rust|assemblyscript FILE" >&2; exit 2 ;;
esac
