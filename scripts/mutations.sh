#!/bin/bash
# Breaks one rule after the other on purpose (Sources/Primitives/Mutation.swift). First the tests of
# schedules must fail, then seeds are simulated until a checker or an invariant notices. A table; fails if
# the absence of a rule stays unnoticed by both.
#
#   scripts/mutations.sh [--seconds n] [--tests-only | --seeds-only] [NAME ...]
#
# --seconds: of CPU for the seeds of each rule, 40 if not given.
set -u
cd "$(dirname "$0")/../Proof" || exit 2
seconds=40 tests=yes seeds=yes
while :; do
    case "${1:-}" in
        --seconds) seconds=$2; shift 2 ;;
        --tests-only) seeds=; shift ;;
        --seeds-only) tests=; shift ;;
        *) break ;;
    esac
done
export POLDER_MUTATIONS=1
build=${PROOF_BUILD:-.build/mutations} debug=${PROOF_TESTS:-.build/mutations-tests}
suites='AcceptorTests|LeaderTests|ElectionTests|LeaseTests|MembershipTests|ReleaseTests|PartitionTests|LeaseCheckpointTests|CoordinatorTests|SequencerTests|SplitTests|SplitRestartTests|RestartTests|ConflictTests|LinkTests'
run_tests() { swift test --skip-build --scratch-path "$debug" --filter "$suites" 2>&1; }
if [ -z "${PROOF_SKIP_BUILD:-}" ]; then
    if [ -n "$seeds" ]; then swift build -c release --scratch-path "$build" -j 2 >&2 || exit 2; fi
    if [ -n "$tests" ]; then swift build --build-tests --scratch-path "$debug" -j 2 >&2 || exit 2; fi
fi
if [ -n "$tests" ] && ! run_tests >/dev/null; then
    echo "the tests fail without a mutation" >&2
    exit 2
fi
# Where to look first: the faults that a rule is for.
hint() {
    case $1 in
        ackBeforeDurable) echo --faults powerLoss,slowDisk ;;
        promiseBeforeDurable) echo --faults powerLoss,slowDisk,takeover,crash ;;
        noBegin | confirmUnregistered) echo --faults duel,takeover,crash ;;
        releasedEarly | forgottenLogsCount) echo --faults spread,place,crash,takeover,freeze,powerLoss,groupCut \
            --regions 1 --nodes 5 --pace 1 --partitions 2 ;;
        restartForgetsLease) echo --faults restartedVoter ;;
        leaseFromArrival) echo --faults lateAnswers,stalls ;;
        lapsesIgnored | attemptsGrantedAgain) echo --faults partition,freeze,takeover,duplication,loss --partitions 4 ;;
        outcomesForgottenEarly | prepareInAnotherTerm) echo --faults freeze,takeover,duel,stalls,crash --partitions 8 ;;
        noRecovery) echo --faults oneWayPartition,freeze,takeover,loss,crash --partitions 8 ;;
        expiryOutlivesLeader) echo --faults takeover,duel,freeze \
            --work leaseGrant,leasePut,leasePutMany,leaseKeepAlive,put ;;
        leasesCountAnew) echo --faults takeover --regions 1 --nodes 3 --partitions 2 --pace 40 \
            --work leaseGrant,leasePut,leaseKeepAlive,put ;;
        splitWithoutDrain) echo --faults split --partitions 1 ;;
        oldMapsTrusted) echo --faults split,loss,freeze,partition --partitions 1 --pace 1 --clients 12 \
            --milliseconds 1500 --regions 1 --nodes 3 --work put,multiKey,deleteRange,wide,list ;;
        childForgetsRequests) echo --faults split,loss,crash,connectionReset --partitions 1 --pace 1 \
            --clients 20 --milliseconds 1500 --regions 1 --nodes 3 --work put ;;
        childRegistersAlone) echo --faults split,freeze,takeover,duel,groupCut --partitions 1 ;;
        unknownTailsIgnored) echo --faults split,groupCut,partition,wipe --partitions 1 ;;
        lowFencesTaken | changesToldAtOnce | readsBeforeUsers | frontierBeforeUsers)
            echo --work users,put,get,list,compareAndSwap,multiKey,deleteRange ;;
        floorIsCompaction) echo --faults compaction,freeze,partition,oneWayPartition,stalls,loss --regions 1 --nodes 3 \
            --pace 1 --clients 10 --work put,multiKey,serializableGet,list,historic,compact ;;
        tombstonesByAcknowledgement) echo --faults compaction,regionCut,connectionReset,crash,clockSkew --regions 2 ;;
        cursorNotCompared) echo --faults connectionReset,crash,regionCut,duplication,takeover --regions 2 ;;
    esac
}
names=${*:-$(sed -n 's/^    case \([a-zA-Z]*\)$/\1/p' Sources/Primitives/Mutation.swift)}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
caught=0 tried=0
printf '%-26s %-8s %-6s %s\n' 'broken rule' tests seed 'noticed by'
for name in $names; do
    tried=$((tried + 1))
    failed=- seed=- by=
    if [ -n "$tests" ]; then
        POLDER_MUTATION=$name run_tests >"$out/t"
        failed=$(grep -a '^✘ Test "' "$out/t" | grep -a -o '"[^"]*"' | sort -u | wc -l)
        if grep -a -q 'Fatal error\|invariant broken' "$out/t"; then failed=$((failed + 1)); fi
    fi
    if [ -n "$seeds" ]; then
        from=1 innocent=0
        while :; do
            # shellcheck disable=SC2046
            (ulimit -t "$seconds" -c 0
                exec "$build/release/proof" hunt --mutation "$name" --seed $from --seeds 1000000 $(hint "$name")) \
                >"$out/o" 2>"$out/e"
            seed=$(grep -a '^seed' "$out/o" | tail -1 | cut -d' ' -f2)
            by=$(grep -a '^caught' "$out/o" | head -1 | cut -c8-)
            if [ -z "$by" ]; then
                by=$(grep -a -o 'invariant broken.*\|Fatal error.*' "$out/e" | head -1 | cut -c1-90)
            fi
            if [ -z "$by" ]; then
                by="- (in $seconds s, $seed seeds)" seed=-
                break
            fi
            # A seed proves something only if it is good with the rule.
            # shellcheck disable=SC2046
            "$build/release/proof" hunt --seed "$seed" --seeds 1 $(hint "$name") >/dev/null 2>&1 && break
            from=$((seed + 1)) innocent=$((innocent + 1))
            if [ $innocent -gt 5 ]; then
                by="- (broken without it as well)" seed=-
                break
            fi
        done
    fi
    printf '%-26s %-8s %-6s %s\n' "$name" "$failed" "$seed" "$by"
    if [ "$seed" != - ] || { [ "$failed" != - ] && [ "$failed" -gt 0 ]; }; then caught=$((caught + 1)); fi
done 2>/dev/null
echo "$caught of $tried caught"
[ "$caught" = "$tried" ]
