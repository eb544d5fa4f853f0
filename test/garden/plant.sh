#!/bin/sh
# Installs the servers of the garden, as far as they are missing, as the
# distribution has them. None of them is started.
set -eu
PATH=$PATH:/usr/sbin
missing=
for p in nginx haproxy apache2 lighttpd h2o; do
  command -v "$p" >/dev/null || missing="$missing $p"
done
[ -x /usr/share/tomcat10/bin/catalina.sh ] || missing="$missing tomcat10"
command -v java >/dev/null || missing="$missing default-jre-headless"
[ -n "$missing" ] || exit 0

# Packages start their service on installation unless this file says no.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
  printf '#!/bin/sh\nexit 101\n' >$policy
  chmod +x $policy
  trap 'rm -f $policy' EXIT
fi
# shellcheck disable=SC2086
apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing
