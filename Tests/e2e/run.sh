#!/bin/sh
# Real clients against real clusters: Tests/e2e/run.sh [POLDER] [--only WORD]
set -eu
polder=${1:-.build/release/polder}
[ $# -gt 0 ] && shift
if [ ! -x "$polder" ]; then
    echo "there is no $polder: make build, or name another" >&2
    exit 2
fi
for tool in python3 etcdctl; do
    if ! command -v "$tool" >/dev/null 2>&1; then
        echo "$tool is missing: apt-get install etcd-client python3" >&2
        exit 2
    fi
done
exec python3 "$(dirname "$0")/e2e.py" --polder "$polder" "$@"
