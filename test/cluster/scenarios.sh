#!/bin/sh
# Runs all scenarios again and again, each time with another seed, until the
# time is up or one of them fails. Arguments are those of go test, such as
# -run Power. FOR is how long (10m), SEED what to begin with, WEIR_BIN the
# program.
set -eu
: "${GO:=go}"

seconds() { # 90s, 10m and 2h, in seconds
  case $1 in
  *h) echo $((${1%h} * 3600)) ;;
  *m) echo $((${1%m} * 60)) ;;
  *) echo "${1%s}" ;;
  esac
}

cd "$(dirname "$0")/../.."
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"$GO" test -c -o "$dir/scenarios" ./test/cluster
seed=${SEED:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}
end=$(($(date +%s) + $(seconds "${FOR:-10m}")))
cd test/cluster

flags=
for arg in "$@"; do # those of go test are known to the binary as -test.…
  case $arg in
  -run* | -v* | -count* | -failfast | -skip*) arg=-test.${arg#-} ;;
  esac
  flags="$flags $arg"
done

rounds=0
while :; do
  echo "== seed $seed"
  # shellcheck disable=SC2086
  "$dir/scenarios" -test.timeout 60m -test.failfast -all -seed "$seed" $flags || {
    echo "== failed; to repeat: make scenarios SEED=$seed ARGS=\"$*\"" >&2
    exit 1
  }
  rounds=$((rounds + 1))
  [ "$(date +%s)" -lt "$end" ] || break
  seed=$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')
done
echo "== $rounds rounds, none failed"
