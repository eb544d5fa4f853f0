#!/bin/sh
# Installs the peers that are missing: Python's websockets as the distribution
# has it, and ws from npm beside its program.
set -eu
missing=
/usr/bin/python3 -c 'import websockets' 2>/dev/null || missing="$missing python3-websockets"
command -v npm >/dev/null || missing="$missing nodejs npm"
if [ -n "$missing" ]; then
  # shellcheck disable=SC2086
  apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing
fi
cd "$(dirname "$0")/peers"
[ -d node_modules/ws ] || npm ci --no-audit --no-fund
