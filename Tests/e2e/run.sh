#!/bin/sh
# Real clients against real clusters: Tests/e2e/run.sh [POLDER] [--only WORD]
# Then, unless --only says otherwise, members that come and go (members.py), an upgrade (upgrade.py),
# partitions that are split (splits.py) and moved (moves.py), a region that is spread (spread.py), one that changes
# all of its nodes beside another one (replaced.py), one that gets a second one later (added.py), the essential share of
# Tests/conformance beside real etcd, and a while of the kube-apiserver's model, if there are an etcd and
# Python's grpcio.
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
here=$(dirname "$0")
failed=0
case "${*:-}" in
*conformance* | *members* | *upgrade* | *splits* | *moves* | *replaced* | *spread* | *added*) ;;
*) python3 "$here/e2e.py" --polder "$polder" "$@" || failed=1 ;;
esac
case "${*:-}" in
"" | *members*) python3 "$here/members.py" "$polder" || failed=1 ;;
esac
case "${*:-}" in
"" | *upgrade*) python3 "$here/upgrade.py" "$polder" || failed=1 ;;
esac
case "${*:-}" in
"" | *splits*) python3 "$here/splits.py" "$polder" || failed=1 ;;
esac
case "${*:-}" in
"" | *moves*) python3 "$here/moves.py" "$polder" || failed=1 ;;
esac
case "${*:-}" in
"" | *replaced*) python3 "$here/replaced.py" "$polder" || failed=1 ;;
esac
case "${*:-}" in
"" | *spread*) python3 "$here/spread.py" "$polder" || failed=1 ;;
esac
case "${*:-}" in
"" | *added*) python3 "$here/added.py" "$polder" || failed=1 ;;
esac
case "${*:-}" in
"" | *conformance*) ;;
*) exit $failed ;;
esac

# Debian's grpcio belongs to Debian's python3, which need not come first on the PATH.
python=""
for candidate in python3 /usr/bin/python3; do
    if "$candidate" -c 'import grpc' >/dev/null 2>&1; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "skipped: conformance needs Python's grpcio (apt-get install python3-grpcio)"
    exit $failed
fi
"$python" "$here/../conformance/kubernetes.py" --polder "$polder" --seconds 8 --objects 1500 || failed=1
"$python" "$here/../model/model.py" --polder "$polder" --seed 1 --cases 90 || failed=1
if command -v etcd >/dev/null 2>&1 || [ -x /usr/bin/etcd ]; then
    "$python" "$here/../conformance/conformance.py" --polder "$polder" --essential || failed=1
else
    echo "skipped: conformance beside etcd (apt-get install etcd-server)"
fi
exit $failed
