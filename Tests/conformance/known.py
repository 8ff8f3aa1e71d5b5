"""The differences that we know and want, each with its reason: they become docs/etcd-compatibility.md.

Cases and fields are patterns; a field is "<number of the step> <call> <path>". `etcd` is the beginning of
the version that differs; empty: all of them.
"""
from harness import Known

NEWER, BETTER, OWN, MISSING = (
    "As a newer etcd answers",
    "Better than etcd, on purpose",
    "Polder's own way",
    "Not yet",
)
SECTIONS = {
    NEWER: "Polder answers as etcd 3.7; the reference servers of the tests are older.",
    BETTER: "What is a known defect of etcd is not repeated.",
    OWN: "Follows from how Polder is built; no client that we know of depends on it.",
    MISSING: "Refused with a clear error.",
}
KNOWN = []


def known(section, text, *patterns, etcd=""):
    """`patterns`: (cases, field)."""
    for cases, field in patterns:
        entry = Known(cases, field, text, etcd)
        entry.section = section
        KNOWN.append(entry)


known(NEWER, "`Status` also has `storageVersion`, `downgradeInfo` and (with a quota) `dbSizeQuota`.",
      ("cluster.status", "1 fields storageVersion"), ("cluster.status", "1 fields downgradeInfo"))
known(NEWER, "`HashKV` also answers with `hash_revision`, and takes the compact revision itself (since 3.6).",
      ("cluster.hash_kv", "* HashKV *"))
known(NEWER, "While authentication is off, tokens are passed over (3.5.1 refuses rubbish).",
      ("cluster.auth_is_off", "3 Range *"), ("cluster.auth_is_off", "4 Put *"))
known(NEWER, "A path without a method is `UNIMPLEMENTED` (older grpc-go: `RESOURCE_EXHAUSTED`).",
      ("transport.unknown_methods", "4 */etcdserverpb.KV code"))
known(OWN, "A unary call without a message ends with `INTERNAL` and a sentence (grpc-go: `UNKNOWN`, \"EOF\").",
      ("transport.messages_of_a_unary_call", "1 none *"))
known(BETTER, "A put under a `DeleteRange` to the end of all keys (`range_end` \\0) in one transaction is a "
      "duplicate key, as it is under any other range. etcd's check overlooks that form and writes the key "
      "twice in one revision.",
      ("txn.twice_delete_from_key_put_a*", "*"), ("txn.twice_delete_all_put", "*"),
      ("txn.twice_nested_delete_from_key_put", "*"))
known(OWN, "The end of a lease that once had keys, and has none any more, takes a revision (without events). "
      "It is a transaction over all partitions that know the lease.",
      ("lease.a_key_changes_its_lease", "* header.revision"),
      ("lease.revoke_without_keys_takes_no_revision", "* header.revision"),
      ("kv.delete_takes_the_key_from_its_lease", "* header.revision"))
known(NEWER, "Cancelling a downgrade when there is none is no error (3.7), and 3.4 knows no downgrades.",
      ("cluster.downgrade", "1[1-5] Downgrade *"))
known(NEWER, "Cancelling a downgrade when there is none is no error (3.7), and 3.4 knows no downgrades.",
      ("cluster.downgrade", "*"), etcd="3.4")
known(NEWER, "Answers of `Alarm` have a header, and there is `AuthStatus` (since 3.5).",
      ("cluster.alarm*", "* Alarm"), ("cluster.alarm*", "* Alarm header.*"),
      ("cluster.auth_is_off", "1 AuthStatus *"), etcd="3.4")
known(NEWER, "Answers of `Alarm` have a header, and there is `AuthStatus` (since 3.5).",
      ("auth.permissions_are_checked", "* Alarm*"),
      ("auth.permissions_are_checked", "* AuthStatus {} *"), etcd="3.4")
known(NEWER, "Calls of Maintenance are refused with the status and the text of all other calls (3.5.1: "
      "`UNKNOWN`, \"auth: permission denied\").",
      ("auth.permissions_are_checked", "* HashKV {} *"),
      ("auth.permissions_are_checked", "* Defragment {} *"))
known(NEWER, "Every user may ask for `Status`, and everybody for `AuthStatus` (3.5.1: everybody, and root).",
      ("auth.permissions_are_checked", "* Status is answered"),
      ("auth.permissions_are_checked", "* ann: AuthStatus {} *"),
      ("auth.permissions_are_checked", "* nobody: AuthStatus {} *"))
known(BETTER, "While authentication is on, nobody gets by it: what a nested transaction does is checked like "
      "anything else, whoever compacts must be allowed to write everything, and members, alarms and new leases "
      "are for users only.",
      ("auth.what_etcd_does_not_check", "*"))


NOTES = []


def told(section, text):
    """What no case can show."""
    NOTES.append((section, text))


told(NEWER, "Errors of the gateway have the members of both generations of it: `error`, `code`, `message`. What is wrong "
     "with a request's JSON is said in words of our own.")
told(BETTER, "Who may not lock, or campaign, is told so by the status of all other calls (etcd: `UNKNOWN`). What a role is "
     "granted twice it has once.")
told(BETTER, "`Defragment` answers at once and nothing stands still; NOSPACE ends by itself, and a write that was "
     "answered with it has not been applied; certificates of `--auto-tls` that have expired are made anew.")
told(BETTER, "A node whose disk is much slower than the others' leads nothing, and fails one more check of `/readyz`: `disk_speed`.")
told(BETTER, "Watches end (`permission denied`) when their user may no longer see their keys.")
told(BETTER, "Slow calls are warned about without their keys (etcd logs the whole request): `apply request took too "
     "long` and `request stats`, at most a few a second.")
told(OWN, "The port for peers speaks Polder's protocol: `/raft`, `/members`, `/leases` and the other pages that "
     "etcd's members serve to each other are not there.")
told(OWN, "A revision may be passed over when a leader is lost, or a machine is so slow that a transaction over several "
     "partitions is begun anew: revisions rise, but not always by one (`polder_void_revisions_total`).")
told(OWN, "Some errors never come up, for nothing here could cause them: `cluster ID mismatch`, `member ID already exist`, "
     "`not capable` and those of a downgrade that is under way (none ever is).")
told(OWN, "To begin a downgrade (`Downgrade` with `ENABLE`) is refused as a failed precondition: data is not in etcd's format, and "
     "an older etcd could not go on with it. `VALIDATE` says what etcd says.")
told(OWN, "A member that was removed tells its clients to go, answers who waits (for half a second at most), and ends with "
     "exit code 3 (etcd: 0), so that whatever starts it again can tell.")
told(OWN, "Messages compressed with gzip are taken, as by etcd 3.5 (3.4 refuses them); answers are never compressed.")
told(OWN, "The pages beside gRPC answer `HEAD` like `GET` (etcd: 405).")
told(OWN, "Roles, users and alarms are of a region; regions do not share them.")
told(OWN, "`--listen-peer-urls` takes one address; `--snapshot-count`, `--wal-dir`, `--log-outputs` and whatever else "
     "tunes etcd's own storage is passed over with a warning, as is tracing; "
     "`/debug/vars` has those of etcd's variables that mean something here.")
told(OWN, "`/debug/pprof/` (`--enable-pprof`, or `--log-level debug`) has `profile` (a CPU profile with names, for `go "
     "tool pprof`; with `debug=1` as folded stacks), `heap` (the allocator's own report), `threadcreate` (the "
     "threads), `cmdline` and `symbol`. Goroutines, blocking, mutexes, traces and samples of allocations are "
     "Go's: 404, \"Unknown profile\". `/debug/requests` (`--log-level debug`) shows the calls that are open; "
     "there is no `/debug/events`.")
told(OWN, "`/metrics` has etcd's names, and with `--metrics extensive` its histograms of calls, but none of `go_*`, "
     "`promhttp_*`, `etcd_server_go_version`, `etcd_grpc_proxy_*`, of the v2 store (`etcd_debugging_store_*`) and of the "
     "insides of bbolt (`..._rebalance`, `_spill`, `_write`), of `etcd_snap_*` and `..._snap_save_marshalling...` (a "
     "snapshot is the store's own flush), of pauses of an index in memory (`..._index_compaction_pause...`: there is none), "
     "of applying (`etcd_server_apply_duration_seconds`, and 3.7's `..._range_duration...`, `..._request_duration...`: "
     "requests are applied in batches, none has a time of its own), of writing to the log without its sync "
     "(`etcd_disk_wal_write_duration_seconds`), of the loop that sends events (`..._watch_send_loop_...`), of failures of "
     "streams (`etcd_network_server_stream_failures_total`: they end with a status, which `grpc_server_handled_total` has) "
     "and of feature gates (`etcd_server_feature_enabled`: there are none). "
     "`..._put_total` and its kin count what came through this node, not what it applied. Without a quota "
     "`etcd_server_quota_backend_bytes` is what the disk has room for. `etcd_debugging_mvcc_keys_total` is counted "
     "anew once a minute at most.")
told(BETTER, "`polder snapshot import` lifts the revision and marks what is below as compacted, unless `--keep-revision` says "
     "that nothing was written after the snapshot: no client sees revisions turn back.")
told(BETTER, "Members come and go while a majority is there, also when others are down or have just started (etcd: `unhealthy "
     "cluster`): who is added receives the log before it votes.")
told(BETTER, "Learners answer every client and every call, as any node does (etcd: `rpc not supported for learner`).")
told(BETTER, "A write for which no leader was found in time is answered `no leader`: it has not taken effect (etcd: `request "
     "timed out`, whatever became of it).")
told(OWN, "Without `--quota-backend-bytes` the disk is the limit (etcd: 2 GiB); `NOSPACE` comes before it is full.")
told(OWN, "What a transaction has written itself lies above every lower and upper bound on revisions of its own "
     "ranges (`min_mod_revision` and the like), also above those in the future: its revision is not known yet when the "
     "bound is looked at.")
told(OWN, "A put that names both a lease and (with `ignore_value` or `ignore_lease`) a key that are not there hears of "
     "the key first, alone as in a transaction.")
told(OWN, "`--force-new-cluster` decides what the member's log holds, also what was accepted and not committed (etcd drops "
     "that), keeps the cluster's id, and refuses a data directory without data.")
told(MISSING, "`--discovery` (the discovery service: etcd's public one spoke the v2 API and is gone; `--discovery-srv` "
     "works), `--discovery-token` and `--discovery-endpoints`.")


def page():
    """docs/etcd-compatibility.md"""
    lines = [
        "# Differences from etcd", "",
        "Every case of `Tests/conformance` gets the same answer from Polder as from real etcd, field by",
        "field, except for what stands here. Only ids, terms, sizes, hashes and times are masked. This page",
        "is written by `Tests/conformance/conformance.py --write` from `known.py`, and `make conformance`",
        "fails when a difference is not listed, or is listed and gone.", ""]
    for section, text in SECTIONS.items():
        entries = []
        for entry in KNOWN:
            if entry.section == section and entry.reason not in [r for r, _ in entries]:
                cases = sorted({k.cases for k in KNOWN if k.reason == entry.reason})
                entries.append((entry.reason, cases))
        lines += [f"## {section}", "", text, ""]
        lines += [f"- {reason} (`{'`, `'.join(cases)}`)" for reason, cases in entries]
        lines += [f"- {note}" for where, note in NOTES if where == section]
        lines.append("")
    return "\n".join(lines)
