"""What those who watch over an etcd read: metrics by their names, and the debug pages.

Imported by surface.py.
"""
import json, os, re, shutil, signal, subprocess, urllib.request

from cluster import eventually, free_base_port, run

# What the alerts and the dashboards of etcd's own mixin ask for, and dashboards that many use beside them.
MIXIN = """
    etcd_disk_backend_commit_duration_seconds_bucket etcd_disk_wal_fsync_duration_seconds_bucket
    etcd_mvcc_db_total_size_in_bytes etcd_mvcc_db_total_size_in_use_in_bytes
    etcd_network_peer_round_trip_time_seconds_bucket etcd_network_peer_sent_failures_total
    etcd_network_client_grpc_received_bytes_total etcd_network_client_grpc_sent_bytes_total
    etcd_network_peer_received_bytes_total etcd_network_peer_sent_bytes_total
    etcd_server_has_leader etcd_server_leader_changes_seen_total etcd_server_proposals_failed_total
    etcd_server_proposals_applied_total etcd_server_proposals_committed_total
    etcd_server_proposals_pending etcd_server_quota_backend_bytes grpc_server_handled_total
    grpc_server_handling_seconds_bucket grpc_server_started_total process_resident_memory_bytes""".split()
OTHERS = """
    etcd_cluster_version etcd_server_version etcd_server_is_leader etcd_server_is_learner etcd_server_id
    etcd_server_slow_apply_total etcd_server_slow_read_indexes_total etcd_server_read_indexes_failed_total
    etcd_server_heartbeat_send_failures_total etcd_server_snapshot_apply_in_progress_total
    etcd_server_client_requests_total etcd_server_health_failures etcd_server_health_success etcd_network_active_peers
    etcd_network_known_peers etcd_network_disconnected_peers_total etcd_mvcc_put_total
    etcd_mvcc_delete_total etcd_mvcc_range_total etcd_mvcc_txn_total
    etcd_debugging_mvcc_put_total etcd_debugging_mvcc_delete_total
    etcd_debugging_mvcc_db_compaction_total_duration_milliseconds_bucket
    etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds_bucket
    etcd_debugging_mvcc_db_compaction_keys_total etcd_debugging_mvcc_db_total_size_in_bytes
    etcd_debugging_mvcc_watcher_total etcd_debugging_mvcc_watch_stream_total
    etcd_debugging_mvcc_slow_watcher_total etcd_debugging_mvcc_pending_events_total
    etcd_debugging_mvcc_events_total etcd_debugging_mvcc_current_revision
    etcd_debugging_mvcc_compact_revision etcd_debugging_mvcc_keys_total
    etcd_debugging_snap_save_total_duration_seconds_sum etcd_debugging_lease_granted_total
    etcd_debugging_lease_ttl_total_count etcd_disk_wal_fsync_duration_seconds_sum
    etcd_disk_wal_write_bytes_total etcd_disk_backend_defrag_duration_seconds_count
    etcd_disk_backend_snapshot_duration_seconds_count etcd_disk_defrag_inflight
    grpc_server_msg_received_total grpc_server_msg_sent_total process_cpu_seconds_total
    process_open_fds process_max_fds process_start_time_seconds process_virtual_memory_bytes
    os_fd_used os_fd_limit""".split()
# Families of a real etcd for which there is nothing here that they could measure.
ABSENT = re.compile(
    r"go_|promhttp_|etcd_grpc_proxy_|etcd_debugging_store_|etcd_server_go_version$|"
    r"etcd_debugging_disk_backend_commit_(rebalance|spill|write)_|"
    r"etcd_debugging_mvcc_index_compaction_pause_|etcd_debugging_snap_save_marshalling_|"
    r"etcd_server_apply_duration_seconds$|"
    r"etcd_snap_")


def read(url):
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read()


def metrics(url):
    """{name: {labels: value}}"""
    found = {}
    for line in read(url + "/metrics").decode().splitlines():
        if line and line[0] != "#":
            name, labels, value = re.fullmatch(r"(\w+)(\{.*\})? (\S+)", line).groups()
            found.setdefault(name, {})[labels or ""] = float(value)
    return found


def three(e, names):
    base = free_base_port(3)
    cluster = ",".join(f"{n}=http://127.0.0.1:{base + 10 * i + 1}" for i, n in enumerate(names))
    urls = {}
    for i, name in enumerate(names):
        client, peer = (f"http://127.0.0.1:{base + 10 * i + k}" for k in (0, 1))
        urls[name] = client
        e.start(name, [
            "--name", name, "--data-dir", f"{e.dir}/{name}.etcd", "--listen-client-urls", client,
            "--advertise-client-urls", client, "--listen-peer-urls", peer,
            "--initial-advertise-peer-urls", peer, "--initial-cluster", cluster, "--metrics",
            "extensive"], wait=False)
    return urls


def dashboards(check, e):
    print("      metrics, as dashboards and alerts ask for them", flush=True)
    names = ["o0", "o1", "o2"]
    urls = three(e, names)
    for name in names:
        check(f"{name} comes up", e.said(name, "ready to serve client requests"))
    for i in range(20):
        e.etcdctl("put", f"o/{i}", "x", at=urls["o0"])
    e.etcdctl("get", "o/", "--prefix", at=urls["o1"])
    e.etcdctl("lease", "grant", "60", at=urls["o1"])
    e.etcdctl("lease", "grant", "2", at=urls["o1"])
    for name in names:
        read(urls[name] + "/metrics")   # begins to count the keys
        e.etcdctl("get", "o/0", at=urls[name])
    for name in names:
        def seen():
            found = metrics(urls[name])
            return found if all(n in found for n in MIXIN + OTHERS) and len(
                [v for v in found["etcd_network_peer_round_trip_time_seconds_count"].values() if v > 0]) == 2 else None
        found = eventually(seen) or metrics(urls[name])
        absent = [n for n in MIXIN + OTHERS if n not in found]
        check(f"{name} has every metric by its name", not absent, absent)
        one = lambda n: sum(found.get(n, {}).values())
        check("with sensible values",
              one("etcd_server_has_leader") == 1 and one("etcd_network_active_peers") == 2
              and one("etcd_debugging_mvcc_keys_total") == 20
              and one("etcd_network_peer_round_trip_time_seconds_sum") > 0
              and one("etcd_server_quota_backend_bytes") > one("etcd_mvcc_db_total_size_in_bytes") > 0
              and one("etcd_disk_wal_write_bytes_total") > 0
              and one("etcd_disk_wal_fsync_duration_seconds_count") > 0,
              {n: found.get(n) for n in ("etcd_server_has_leader", "etcd_network_active_peers",
                                         "etcd_debugging_mvcc_keys_total", "etcd_server_quota_backend_bytes")})
    def expired():
        of_all = [metrics(urls[name]) for name in names]
        return all(sum(sum(found[n].values()) for found in of_all) == 1 for n in (
            "etcd_debugging_server_lease_expired_total", "etcd_debugging_lease_revoked_total"))
    check("the lease that has run out is counted, once", eventually(expired))
    found = metrics(urls["o1"])
    check("what was put, wherever that was",
          sum(found["etcd_debugging_mvcc_total_put_size_in_bytes"].values()) == 20 + sum(
              len(f"o/{i}") for i in range(20)), found["etcd_debugging_mvcc_total_put_size_in_bytes"])
    check("the cluster's version has two numbers, as etcd's",
          list(found["etcd_cluster_version"]) == ['{cluster_version="3.7"}'], found["etcd_cluster_version"])
    e.end("o2", signal.SIGKILL)

    def lost():
        found = metrics(urls["o0"])
        return (sum(found["etcd_network_active_peers"].values()) == 1
                and sum(found["etcd_network_disconnected_peers_total"].values()) >= 1
                and sum(found["etcd_network_peer_sent_failures_total"].values()) > 0
                and sum(found["etcd_server_has_leader"].values()) == 1)
    check("a member that is down shows", eventually(lost))
    ours = {line.split()[2] for line in read(urls["o0"] + "/metrics").decode().splitlines()
            if line.startswith("# TYPE")}
    for name in names[:2]:
        e.end(name)
    for etcd in sorted({p for p in ("/usr/bin/etcd", shutil.which("etcd")) if p and os.path.exists(p)}):
        theirs, version = families(e, etcd)
        absent = sorted(n for n in theirs - ours if not ABSENT.match(n) and "healthcheck" not in n)
        check(f"every family of etcd {version}, but for those that are listed", theirs and not absent, absent)


def families(e, etcd):
    base = free_base_port(1)
    client, peer = f"http://127.0.0.1:{base}", f"http://127.0.0.1:{base + 1}"
    folder = f"{e.dir}/families-{base}"
    process = subprocess.Popen(
        [etcd, "--data-dir", folder, "--listen-client-urls", client, "--advertise-client-urls", client,
         "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster",
         f"default={peer}", "--metrics", "extensive"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: e.etcdctl("put", "a", "1", "--command-timeout=2s", at=client).ok)
        lines = read(client + "/metrics").decode().splitlines()
        return ({line.split()[2] for line in lines if line.startswith("# TYPE")},
                json.loads(read(client + "/version"))["etcdserver"])
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def fields(raw):
    """The fields of a protobuf message: (number, value)."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = raw[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
    while at < len(raw):
        tag = varint()
        if tag & 7 == 0:
            yield tag >> 3, varint()
        else:
            size = varint()
            yield tag >> 3, raw[at:at + size]
            at += size


def debug_pages(check, e):
    print("      /debug", flush=True)
    base = free_base_port(1)
    client, peer = f"http://127.0.0.1:{base}", f"http://127.0.0.1:{base + 1}"
    words = ["--name", "debug", "--data-dir", f"{e.dir}/debug.etcd", "--listen-client-urls", client,
             "--advertise-client-urls", client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls",
             peer, "--initial-cluster", f"debug={peer}"]
    check("it comes up", e.start("debug", words))
    status = lambda path: run(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", client + path]).out
    for path in ("/debug/pprof/", "/debug/pprof/profile", "/debug/requests", "/debug"):
        check(f"{path} is not there by itself", status(path) == "404", status(path))
    variables = json.loads(read(client + "/debug/vars"))
    check("/debug/vars is", variables["raft.status"]["raftState"] == "StateLeader"
          and variables["memstats"]["HeapInuse"] > 0, variables)
    e.end("debug")
    check("with --enable-pprof", e.start("debug", words + ["--enable-pprof"]))
    check("the index is", "profile?seconds" in read(client + "/debug/pprof/").decode())
    check("and is found without its slash", status("/debug/pprof") == "301", status("/debug/pprof"))
    check("what only Go has is unknown", status("/debug/pprof/goroutine") == "404")
    words_told = read(client + "/debug/pprof/cmdline").split(b"\0")
    check("cmdline", b"--enable-pprof" in words_told, words_told)
    threads = read(client + "/debug/pprof/threadcreate?debug=1").decode()
    check("threads", threads.startswith("threadcreate profile: total "), threads[:200])
    heap = read(client + "/debug/pprof/heap?debug=1").decode()
    check("the allocator's report", "jemalloc" in heap or "<malloc" in heap, heap[:200])
    load = subprocess.Popen(
        [shutil.which("curl"), "-s", "-o", "/dev/null", "--max-time", "20",
         f"{client}/metrics?[1-100000]"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        profile = read(client + "/debug/pprof/profile?seconds=2")
        folded = read(client + "/debug/pprof/profile?seconds=1&debug=1").decode()
    finally:
        load.kill()
        load.wait()
    parts = list(fields(profile))
    texts = [v.decode() for n, v in parts if n == 6]
    samples = [dict(fields(v)) for n, v in parts if n == 2]
    locations = {dict(fields(v))[1] for n, v in parts if n == 4}
    check("a CPU profile has samples", len(samples) > 0 and all(1 in s and 2 in s for s in samples),
          (len(profile), len(samples)))
    used = {i for s in samples for i in varints(s[1])}
    check("whose places are in it", used and used <= locations)
    check("with the names of functions", any("EtcdFacade" in t or "NIOPosix" in t for t in texts), texts[:30])
    check("as folded stacks too", re.search(r"^.*(EtcdFacade|NIOPosix).*;.* \d+$", folded, re.M),
          folded[:500])
    check("puts go on meanwhile", e.etcdctl("put", "a", "1", at=client).ok)
    e.end("debug")
    check("and with everything logged", e.start("debug", words + ["--log-level", "debug"]))
    watch = subprocess.Popen([e.etcdctl_path, f"--endpoints={client}", "watch", "a"],
                             stdout=subprocess.DEVNULL, env=dict(os.environ, ETCDCTL_API="3"))
    try:
        check("/debug/requests shows what is open", eventually(
            lambda: "/etcdserverpb.Watch/Watch</td><td>watches: 1" in read(client + "/debug/requests").decode()))
    finally:
        watch.kill()
        watch.wait()
    e.end("debug")


def varints(raw):
    value = shift = 0
    for byte in raw:
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            yield value
            value = shift = 0


def check_all(check, e):
    dashboards(check, e)
    debug_pages(check, e)
