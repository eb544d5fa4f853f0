#!/bin/sh
# Installs what bench and bench/raft compare Weir with, as far as it is missing:
# nginx and HAProxy as the distribution has them, Caddy, Traefik and etcd from
# their Go modules, into $TOOLS.
set -eu

caddy=v2.11.9
traefik=v3.7.13
etcd=v3.7.3

: "${GO:=go}" "${TOOLS:=$PWD/.bin}"
mkdir -p "$TOOLS"
PATH=$PATH:/usr/sbin

missing=
for p in nginx haproxy; do
  command -v "$p" >/dev/null || missing="$missing $p"
done
if [ -n "$missing" ]; then
  # shellcheck disable=SC2086
  apt-get update && apt-get install -y --no-install-recommends $missing
fi

[ -x "$TOOLS/caddy" ] ||
  GOBIN=$TOOLS "$GO" install "github.com/caddyserver/caddy/v2/cmd/caddy@$caddy"

# Traefik's module has replace directives, which go install refuses: it is built
# as the dependency of a module made here, with the same directives. Where the
# module proxy does not serve all that it needs, the table goes without it.
build_traefik() {
  module=github.com/traefik/traefik/v3
  gomod=$("$GO" mod download -json "$module@$traefik" | sed -n 's/^[[:space:]]*"GoMod": "\(.*\)",*$/\1/p') &&
    sed -e 's,^module .*,module peers,' "$gomod" >"$1/go.mod" &&
    cd "$1" &&
    "$GO" mod edit -require="$module@$traefik" &&
    GOFLAGS=-mod=mod "$GO" build -o "$TOOLS/traefik" "$module/cmd/traefik"
}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
if [ ! -x "$TOOLS/traefik" ]; then
  (build_traefik "$dir") || echo "peers: Traefik $traefik could not be built from its modules; going on without it" >&2
fi

# Its module has replace directives too, but only for the modules beside it,
# which are published under the same version.
build_etcd() {
  cd "$1" &&
    "$GO" mod init peers &&
    "$GO" mod edit -require="go.etcd.io/etcd/server/v3@$etcd" &&
    GOFLAGS=-mod=mod "$GO" build -o "$TOOLS/etcd" go.etcd.io/etcd/server/v3
}
if [ ! -x "$TOOLS/etcd" ]; then
  mkdir "$dir/etcd"
  (build_etcd "$dir/etcd") || echo "peers: etcd $etcd could not be built from its modules; going on without it" >&2
fi
