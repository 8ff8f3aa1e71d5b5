#!/bin/bash
# Breaks one rule after the other on purpose (Sources/Primitives/Mutation.swift) and runs seeds until a
# checker or an invariant notices. A table; fails if a rule's absence stays unnoticed.
#
#   scripts/mutations.sh [--seconds n] [NAME ...]     seconds of CPU for each rule, 40 if not given
set -u
cd "$(dirname "$0")/../Proof" || exit 2
seconds=40
if [ "${1:-}" = --seconds ]; then seconds=$2; shift 2; fi
build=${PROOF_BUILD:-.build/mutations}
if [ -z "${PROOF_SKIP_BUILD:-}" ]; then
    POLDER_MUTATIONS=1 swift build -c release --scratch-path "$build" -j 2 >&2 || exit 2
fi
proof=$build/release/proof
names=${*:-$("$proof" mutations)}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
caught=0 tried=0
printf '%-26s %-7s %-6s %s\n' rule caught seed 'noticed by'
for name in $names; do
    tried=$((tried + 1))
    (ulimit -t "$seconds" -c 0; exec "$proof" hunt --mutation "$name" --seeds 100000) >"$out/o" 2>"$out/e"
    seed=$(grep -a '^seed' "$out/o" | tail -1 | cut -d' ' -f2)
    if by=$(grep -a '^caught' "$out/o"); then
        by=${by#caught }
    elif by=$(grep -a -o 'invariant broken.*\|Fatal error.*' "$out/e" | head -1) && [ -n "$by" ]; then
        by="stopped: $(echo "$by" | cut -c1-90)"
    else
        printf '%-26s %-7s %-6s %s\n' "$name" NO "$seed" "- in $seconds s"
        continue
    fi
    caught=$((caught + 1))
    printf '%-26s %-7s %-6s %s\n' "$name" yes "$seed" "$by"
done
echo "$caught of $tried caught"
[ "$caught" = "$tried" ]
