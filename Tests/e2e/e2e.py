#!/usr/bin/env python3
"""What a stranger does with Polder: real etcdctl against real processes, killed, frozen, cut off.

Every check prints a line; the last line is `N passed, N failed`.
"""
import argparse, base64, json, os, shutil, signal, ssl, subprocess, sys, tempfile, time, traceback
import urllib.request

import auth as auth_checks
import clients as clients_checks
import gateway
import surface as surface_checks
from cluster import Cluster, Load, eventually, free_base_port, run
from snapshots import run_all as run_snapshots

passed, failed = 0, 0


def check(name, condition, detail=""):
    global passed, failed
    if condition:
        passed += 1
        print(f"ok    {name}", flush=True)
    else:
        failed += 1
        print(f"FAIL  {name}  {str(detail)[:1500]}", flush=True)
    return bool(condition)


def text(value):
    return base64.b64decode(value or "").decode()


# MARK: etcd's surface, on any cluster

def key_values(c, p):
    e = c.etcdctl
    check("put", e("put", p + "a", "1").out.strip() == "OK")
    for k, v in (("b", "2"), ("c", "3"), ("d", "4")):
        e("put", p + k, v)
    check("get", c.get(p + "a") == "1")
    got = e("get", p, "--prefix", "-w", "json").json
    check("get by prefix", [text(kv["value"]) for kv in got["kvs"]] == ["1", "2", "3", "4"], got)
    got = e("get", p + "b", p + "d", "-w", "json").json
    check("get a range", [text(kv["key"]) for kv in got["kvs"]] == [p + "b", p + "c"], got)
    got = e("get", p, "--prefix", "--limit", "2", "-w", "json").json
    check("limit and more", len(got["kvs"]) == 2 and got.get("more") and got["count"] == 4, got)
    got = e("get", p, "--prefix", "--order", "DESCEND", "--sort-by", "VALUE", "-w", "json").json
    check("sort", [text(kv["value"]) for kv in got["kvs"]] == ["4", "3", "2", "1"], got)
    got = e("get", p, "--prefix", "--keys-only", "-w", "json").json
    check("keys only", all("value" not in kv for kv in got["kvs"]) and len(got["kvs"]) == 4, got)
    first = e("put", p + "h", "old", "-w", "json").json["header"]["revision"]
    again = e("put", p + "h", "new", "-w", "json").json["header"]["revision"]
    check("revisions are dense", again == first + 1, (first, again))
    check("get at a revision", c.etcdctl("get", p + "h", f"--rev={first}", "--print-value-only")
          .out.strip() == "old")
    got = e("get", p + "h", "-w", "json").json["kvs"][0]
    check("create, mod, version", (got["create_revision"], got["mod_revision"], got["version"])
          == (first, again, 2), got)
    future = e("get", p + "h", f"--rev={again + 1000}")
    check("a future revision is an error",
          "required revision is a future revision" in future.err, future)
    got = e("put", p + "h", "newer", "--prev-kv", "-w", "json").json
    check("prev-kv", text(got["prev_kv"]["value"]) == "new", got)
    check("ignore-value", e("put", p + "h", "--ignore-value").ok and c.get(p + "h") == "newer")
    check("ignore-value of nothing", "key not found" in e("put", p + "none", "--ignore-value").err)
    got = e("del", p + "a", "--prev-kv", "-w", "json").json
    check("del", got["deleted"] == 1 and text(got["prev_kvs"][0]["value"]) == "1", got)
    check("del a prefix", e("del", p, "--prefix").out.strip() == "4")
    check("nothing is left", e("get", p, "--prefix", "-w", "json").json.get("count", 0) == 0)
    check("an empty key is refused", "key is not provided" in e("put", "", "x").err)


def transactions(c, p):
    e = c.etcdctl
    e("put", p + "k", "v")
    out = e("txn", stdin=f'value("{p}k") = "v"\n\nput {p}k w\nput {p}other x\nget {p}k\n\n'
            f'get {p}k\n\n').out
    check("txn, then-branch", out.startswith("SUCCESS") and "w" in out and c.get(p + "other") == "x",
          out)
    out = e("txn", stdin=f'version("{p}k") > "7"\n\nput {p}k bad\n\nget {p}k\n\n').out
    check("txn, else-branch", out.startswith("FAILURE") and c.get(p + "k") == "w", out)
    out = e("txn", stdin=f'create("{p}none") = "0"\nmod("{p}k") > "0"\n\ndel {p}k\n'
            f'put {p}none 1\n\n\n')
    check("txn over several keys", out.out.startswith("SUCCESS") and c.get(p + "k") == "", out)
    many = "".join(f"put {p}many{i:03} {i}\n" for i in range(100))
    out = e("txn", stdin=f"\n{many}\n\n", timeout=30)
    got = e("get", p + "many", "--prefix", "-w", "json").json
    check("100 puts over all partitions are one revision",
          got.get("count") == 100 and len({kv["mod_revision"] for kv in got["kvs"]}) == 1, out)
    too_many = "".join(f"put {p}x{i} {i}\n" for i in range(129))
    check("129 operations are too many",
          "too many operations" in e("txn", stdin=f"\n{too_many}\n\n").err)
    check("a key twice is refused",
          "duplicate key" in e("txn", stdin=f"\nput {p}d 1\nput {p}d 2\n\n\n").err)


def watches(c, p):
    start = c.etcdctl("put", p + "w", "0", "-w", "json").json["header"]["revision"]
    words = c.etcdctl_words("watch", p, "--prefix", f"--rev={start}", "--prev-kv", "-w", "json")
    watcher = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env=dict(os.environ, ETCDCTL_API="3"))
    for i in range(1, 11):
        c.etcdctl("put", f"{p}w{i % 3}", str(i))
    c.etcdctl("del", p + "w1")
    time.sleep(5)
    watcher.terminate()
    out, err = watcher.communicate()
    events = [event for line in out.splitlines() for event in json.loads(line)["Events"]]
    revisions = [event["kv"]["mod_revision"] for event in events]
    check("watch: all events, in order, none twice",
          revisions == list(range(start, start + 12)), (revisions, err))
    check("watch: deletion with prev-kv",
          events and events[-1].get("type") in (1, "DELETE")
          and text(events[-1]["prev_kv"]["value"]) == "10", events[-1:])


def leases(c, p):
    e = c.etcdctl
    lease = e("lease", "grant", "60").out.split()[1]
    e("put", p + "l", "v", f"--lease={lease}")
    out = e("lease", "timetolive", lease, "--keys").out
    check("lease timetolive with keys", p + "l" in out and "granted with TTL(60s)" in out, out)
    check("lease list", lease in e("lease", "list").out)
    check("lease keep-alive", "TTL(60)" in e("lease", "keep-alive", "--once", lease).out)
    check("lease revoke takes its keys", e("lease", "revoke", lease).ok and c.get(p + "l") == "")
    check("an unknown lease", "requested lease not found" in e("lease", "revoke", lease).err)
    short = e("lease", "grant", "10").out.split()[1]
    put = e("put", p + "short", "v", f"--lease={short}")
    check("a lease holds its key", c.get(p + "short") == "v", put)
    check("a lease expires", eventually(lambda: c.get(p + "short") == "", 20, 0.3))


def compaction(c, p):
    e = c.etcdctl
    old = e("put", p + "c", "1", "-w", "json").json["header"]["revision"]
    new = e("put", p + "c", "2", "-w", "json").json["header"]["revision"]
    check("compaction", e("compaction", str(new)).ok)
    got = e("get", p + "c", f"--rev={old}")
    check("a compacted revision is an error", "required revision has been compacted" in got.err, got)
    check("twice is an error",
          "required revision has been compacted" in e("compaction", str(new)).err)
    check("the newest stays", c.get(p + "c") == "2")
    got = e("watch", p + "c", f"--rev={old}", timeout=30)
    check("a watch from there is cancelled", "compacted" in got.err + got.out, got)


def cluster_calls(c, count):
    e = c.etcdctl
    check("member list", e("member", "list").out.count("started") == count)
    got = e("endpoint", "status", "-w", "json")
    check("endpoint status: one leader",
          len({s["Status"]["leader"] for s in got.json}) == 1 and len(got.json) == count, got)
    got = e("endpoint", "health")
    check("endpoint health", (got.out + got.err).count("is healthy") == count, got)

    def hashes():
        got = e("endpoint", "hashkv", "-w", "json")
        return got.ok and len({h["HashKV"]["hash"] for h in got.json}) == 1
    check("hashkv is equal on all members", eventually(hashes, 5))
    for name in list(c.nodes)[:count]:
        status, body = c.http("/health", at=name)
        check(f"/health of {name}", status == 200 and '"true"' in body, body)
    name = list(c.nodes)[0]
    check("/version", '"etcdserver"' in c.http("/version", at=name)[1])
    metrics = c.http("/metrics", at=name)[1]
    for metric in ("polder_frontier_revision", "polder_partition_leader{partition=",
                   "polder_conflicts_total{policy=", "process_cpu_seconds_total",
                   "process_resident_memory_bytes"):
        check(f"/metrics has {metric}", metric in metrics)


def whole_surface(c, count, p):
    key_values(c, p + "kv/")
    transactions(c, p + "txn/")
    watches(c, p + "watch/")
    leases(c, p + "lease/")
    compaction(c, p + "compact/")
    cluster_calls(c, count)


# MARK: Suites

def single(options):
    c = Cluster(options.polder, options.etcdctl[0], regions=1, nodes=1, tls=False)
    try:
        for path in options.etcdctl:
            c.etcdctl_path = path
            version = run([path, "version"]).out.split("\n")[0].split()[-1]
            print(f"      one node, plain, etcdctl {version}", flush=True)
            whole_surface(c, 1, f"e2e-{version}/")
        print("      the JSON gateway and its like, plain", flush=True)
        gateway.everything(check, c, 1, "e2e-gateway/")
        bad_input(options, c)
        c.etcdctl("put", "kept", "yes")
        check("a clean stop is exit code 0", c.stop() == 0)
        check("dev.json goes with it", not os.path.exists(c.dir + "/dev.json"))
        c.start()
        check("it resumes with the data", c.get("kept") == "yes")
    finally:
        if failed:
            print(c.logs())
        c.remove()


def bad_input(options, c):
    polder = options.polder
    check("wrong flags are exit code 2", run([polder, "dev", "--nonsense"]).code == 2)
    check("a wrong value is exit code 2",
          run([polder, "dev", "--data-dir", "/tmp/x", "--nodes", "many"]).code == 2)
    again = run([polder, "serve", "-c", c.dir + "/r1-n1/node.yaml"])
    check("a second process on the same data is exit code 3", again.code == 3, again)
    check("... and says why", "used by another process" in again.err, again)
    again = run([polder, "dev", "--data-dir", c.dir])
    check("a second polder dev on the same directory is exit code 3", again.code == 3, again)
    other = c.dir + "-other"
    taken = run([polder, "dev", "--data-dir", other, "--base-port", str(c.base), "--no-tls"])
    shutil.rmtree(other, ignore_errors=True)
    check("a taken port is exit code 3 and named",
          taken.code == 3 and f"port {c.base}" in taken.err, taken)
    with open(c.dir + "/r1-n1/node.yaml") as f:
        yaml = f.read()
    broken = c.dir + "/broken.yaml"
    with open(broken, "w") as f:
        f.write(yaml + "colour: blue\n")
    got = run([polder, "serve", "-c", broken])
    check("an unknown key is exit code 2 with its line",
          got.code == 2 and "colour: unknown key" in got.err, got)
    with open(broken, "w") as f:
        f.write(yaml.replace("id: 1, name: \"r1\"", "id: 7, name: \"r1\""))
    c.dev_node("stop", "r1-n1")
    got = run([polder, "serve", "-c", broken])
    check("another region's data is exit code 3", got.code == 3, got)
    check("the node starts again", c.dev_node("start", "r1-n1").ok)
    check("no daemon, no dev-node",
          run([polder, "dev-node", "kill", "r1-n1", "--data-dir", "/nonexistent"]).code == 3)


def region(options):
    c = Cluster(options.polder, options.etcdctl[-1], regions=1, nodes=3)
    try:
        print("      three nodes, mutual TLS", flush=True)
        whole_surface(c, 3, "tls/")
        gateway.everything(check, c, 3, "tls-gateway/")
        gateway.failover(check, c, "tls-gateway/")
        names = list(c.nodes)
        for i in range(6):
            c.etcdctl("put", "each", str(i), at=names[i % 3])
            seen = [c.get("each", at=name) for name in names]
            if not check(f"a write at {names[i % 3]} is read everywhere", seen == [str(i)] * 3, seen):
                break
        wrong = run([c.etcdctl_path, f"--endpoints={c.urls()[0]}",
                     f"--cacert={c.description['tls']['ca']}", "get", "x"])
        check("a client without certificate is refused", not wrong.ok, wrong)
        line = next(l.strip() for l in c.printed if l.strip().endswith("put hello world"))
        pasted = run(["sh", "-c", line])
        check("the printed line works when pasted", pasted.out.strip() == "OK", pasted)
        crashes(c)
        move_leader(c)
        rolling_restart(c)
        frozen(c)
        everything_killed(c)
        check("a clean stop is exit code 0", c.stop() == 0)
    finally:
        if failed:
            print(c.logs())
        c.remove()


def verify(c, load, what):
    c_get = c.etcdctl("get", load.prefix, "--prefix", "-w", "json", timeout=60)
    held = {text(kv["key"]): text(kv["value"]) for kv in c_get.json.get("kvs", [])} if c_get.ok else {}
    lost = [k for k, v in load.acknowledged.items() if held.get(k) != v]
    check(f"{what}: no acknowledged write is lost ({len(load.acknowledged)} of them)",
          not lost and load.acknowledged, lost[:5])
    check(f"{what}: no revision is given twice",
          len(set(load.revisions)) == len(load.revisions))
    # What was under way at the dying node may end in "outcome unknown"; nothing else may.
    check(f"{what}: at most the requests in flight failed", len(load.failed) <= 2, load.failed[:5])
    print(f"      slowest put {load.slowest * 1000:.0f} ms, {len(load.failed)} errors", flush=True)


def crashes(c):
    for name in list(c.nodes):
        others = [n for n in c.nodes if n != name]
        load = Load(c, f"crash-{name}/")
        start = c.etcdctl("get", "x", "-w", "json").json["header"]["revision"] + 1
        words = c.etcdctl_words("watch", load.prefix, "--prefix", f"--rev={start}", "-w", "json",
                                at=others[0])
        watcher = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                   env=dict(os.environ, ETCDCTL_API="3"))
        load.start()
        time.sleep(1.5)
        os.kill(c.nodes[name]["pid"], signal.SIGKILL)
        time.sleep(2)
        c.read_description()
        check(f"{name} stays dead until asked for", c.nodes[name]["pid"] is None)
        check(f"{name} starts again", c.dev_node("start", name).ok)
        time.sleep(1)
        load.stop()
        time.sleep(1)
        watcher.terminate()
        out, _ = watcher.communicate()
        events = [e for l in out.splitlines() for e in json.loads(l)["Events"]]
        seen = [text(e["kv"]["key"]) for e in events]
        verify(c, load, f"kill -9 of {name}")
        missing = [k for k in load.acknowledged if k not in seen]
        check(f"kill -9 of {name}: the watch missed nothing and doubled nothing",
              not missing and len(seen) == len(set(seen)), (missing[:3], len(seen), len(set(seen))))
        caught_up = eventually(
            lambda: c.get(max(load.acknowledged), at=name) == load.acknowledged[max(load.acknowledged)])
        check(f"{name} has caught up", caught_up)


def leader(c):
    got = c.etcdctl("endpoint", "status", "-w", "json").json
    return got[0]["Status"]["leader"], {s["Status"]["header"]["member_id"]: s["Endpoint"] for s in got}


def move_leader(c):
    old, members = leader(c)
    new = next(m for m in members if m != old)
    name_of = {url: name for name, url in zip(c.nodes, c.urls())}
    load = Load(c, "moved/")
    load.start()
    time.sleep(0.5)
    got = c.etcdctl("move-leader", f"{new:x}", at=name_of[members[old]])
    check("move-leader", got.ok and "Leadership transferred" in got.out, got)
    check("the leader is the one that was asked for", eventually(lambda: leader(c)[0] == new, 5))
    got = c.etcdctl("move-leader", f"{old:x}", at=name_of[members[old]])
    check("only the leader moves itself away", not got.ok, got)
    got = c.etcdctl("move-leader", "123abc", at=name_of[members[new]])
    check("a stranger is no transferee", "bad leader transferee" in got.err + got.out, got)
    time.sleep(0.5)
    load.stop()
    verify(c, load, "move-leader")
    check("move-leader fails nothing", not load.failed, load.failed[:3])


def rolling_restart(c):
    load = Load(c, "rolling/")
    load.start()
    time.sleep(1)
    for name in c.nodes:
        check(f"{name} stops", c.dev_node("stop", name).ok)
        check(f"{name} starts", c.dev_node("start", name).ok)
        time.sleep(0.5)
    load.stop()
    verify(c, load, "a rolling restart")


def frozen(c):
    load = Load(c, "frozen/")
    load.start()
    time.sleep(1)
    check("freeze", c.dev_node("freeze", "r1-n2").ok)
    time.sleep(3)
    check("thaw", c.dev_node("thaw", "r1-n2").ok)
    time.sleep(1)
    load.stop()
    verify(c, load, "a frozen node")


def everything_killed(c):
    load = Load(c, "all/")
    load.start()
    time.sleep(1.5)
    for node in c.nodes.values():
        os.kill(node["pid"], signal.SIGKILL)
    load.stopping = True
    c.process.kill()
    c.process.wait()
    c.start()
    # The put under way when everything died may have failed, or waited for the cluster's return.
    load.join()
    load.failed = []
    verify(c, load, "kill -9 of everything at once")


def two_regions(options):
    c = Cluster(options.polder, options.etcdctl[-1], regions=2, nodes=3,
                flags=["--enable-fault-injection"])
    try:
        print("      two regions of three nodes, mutual TLS", flush=True)
        c.etcdctl("put", "geo/a", "from r1")
        check("the second region sees a write",
              eventually(lambda: c.get("geo/a", region="r2") == "from r1", 10))
        c.etcdctl("put", "geo/a", "from r2", region="r2")
        check("and the first one the second's", eventually(lambda: c.get("geo/a") == "from r2", 10))
        c.etcdctl("put", "geo/gone", "x")
        eventually(lambda: c.get("geo/gone", region="r2") == "x", 10)
        c.etcdctl("del", "geo/gone", region="r2")
        check("a deletion crosses", eventually(lambda: c.get("geo/gone") == "", 10))
        many = "".join(f"put geo/many{i:02} {i}\n" for i in range(50))
        c.etcdctl("txn", stdin=f"\n{many}\n\n")

        def whole():
            got = c.etcdctl("get", "geo/many", "--prefix", "-w", "json", region="r2")
            return got.ok and got.json.get("count", 0)
        counts = set()
        eventually(lambda: counts.add(whole()) or 50 in counts, 10)
        check("a transaction is never seen in part", counts <= {0, 50} and 50 in counts, counts)
        cut_off(c)
        status(options, c)
        check("a clean stop is exit code 0", c.stop() == 0)
        c.start()
        # A busy machine may need a moment to answer; what it answers is never anything else.
        for region in ("r1", "r2"):
            found = []
            eventually(lambda: found.append(c.get("geo/a", region=region)) or found[-1], 60)
            check(f"{region} resumes", found[-1] == "from r2", found)
        c.etcdctl("put", "geo/later", "y")
        check("replication resumes",
              eventually(lambda: c.get("geo/later", region="r2") == "y", 10))
    finally:
        if failed:
            print(c.logs())
        c.remove()


def cut_off(c):
    ones = [n for n in c.nodes if n.startswith("r1-")]
    for name in ones:
        status, body = c.http("/polder/fault?peer=r2&block=true", at=name, method="POST")
        check(f"{name} is cut off from r2", status == 200, body)
    for i in range(5):
        c.etcdctl("put", f"cut/{i}", f"r1 {i}")
        c.etcdctl("put", f"cut/{i}", f"r2 {i}", region="r2")
    c.etcdctl("put", "cut/only-r1", "1")
    c.etcdctl("put", "cut/only-r2", "2", region="r2")
    time.sleep(2)
    check("nothing crosses while cut off",
          c.get("cut/only-r1", region="r2") == "" and c.get("cut/only-r2") == "")
    for name in ones:
        c.http("/polder/fault?peer=r2", at=name, method="POST")

    def held(region):
        got = c.etcdctl("get", "cut/", "--prefix", "-w", "json", region=region)
        return {text(kv["key"]): text(kv["value"]) for kv in got.json.get("kvs", [])}
    check("afterwards both regions hold equal values",
          eventually(lambda: len(held("r1")) == 7 and held("r1") == held("r2"), 30),
          (held("r1"), held("r2")))
    check("the later write won", all(held("r1")[f"cut/{i}"] == f"r2 {i}" for i in range(5)), held("r1"))
    feed = run([c.polder, "conflicts", "list", "--dev", c.dir, "-o", "json"])
    check("the losers are in the conflict feed", feed.out.count("cut/") >= 5, feed)


def status(options, c):
    got = run([options.polder, "status", "--dev", c.dir, "-o", "json"])
    regions = got.json["regions"] if got.ok else []
    check("status: both regions", [r["name"] for r in regions] == ["r1", "r2"], got)
    check("status: eight partitions, led, on three nodes",
          all(len(r["partitions"]) == 8 and all(
              p["leader"] and len(p["replicas"]) == 3 for p in r["partitions"]) for r in regions), got)
    check("status: sequencer and healthy nodes",
          all(r["sequencer"]["node"] and all(n["health"] == "healthy" for n in r["nodes"])
              for r in regions), got)
    table = run([options.polder, "status", "--dev", c.dir])
    check("status as a table", table.out.count("r2-n3") >= 1 and "PARTITION" in table.out, table)
    out = c.dir + "/probe"
    probe = run([options.polder, "probe", "--dev", c.dir, "--rate", "20", "--duration", "5s",
                 "--out", out], timeout=60)
    report = run([options.polder, "report", out, "-o", "json"], timeout=60)
    check("probe", probe.ok, probe)
    check("report", report.ok and os.path.exists(out + "/report.html"), report)
    if report.ok:
        a = report.json["availability"]
        check("report: fields of the contract",
              all(set(a[k]) >= {"ratio", "lowerBound95", "probes", "failures"}
                  for k in ("read", "write")) and "outages" in report.json and "latency" in report.json)


# MARK: In the place of etcd

class Etcd:
    """Processes called `etcd`, started with etcd's flags."""

    def __init__(self, options):
        self.etcdctl_path = options.etcdctl[-1]
        self.dir = tempfile.mkdtemp(prefix="polder-etcd-")
        self.program = self.dir + "/etcd"
        os.symlink(options.polder, self.program)
        self.polder, self.processes, self.tls_flags = options.polder, {}, []

    def start(self, name, flags, env=None, wait=True):
        log = open(f"{self.dir}/{name}.log", "ab")
        began = log.tell()
        self.processes[name] = subprocess.Popen(
            [self.program, *flags], stdout=log, stderr=log, cwd=self.dir,
            env=dict(os.environ, **(env or {})))
        log.close()
        return not wait or self.said(name, "ready to serve client requests", began)

    def said(self, name, message, after=0, seconds=20):
        def found():
            with open(f"{self.dir}/{name}.log") as f:
                f.seek(after)
                lines = [json.loads(l) for l in f.read().splitlines() if l.startswith("{")]
            return next((l for l in lines if l["msg"].startswith(message)), None)
        return eventually(found, seconds)

    def etcdctl(self, *words, at, timeout=60):
        return run([self.etcdctl_path, f"--endpoints={at}", *self.tls_flags, *words], timeout=timeout)

    def get(self, key, at):
        answer = self.etcdctl("get", key, "--print-value-only", at=at)
        return answer.out.rstrip("\n") if answer.ok else answer

    def end(self, name, number=signal.SIGTERM):
        process = self.processes.pop(name)
        process.send_signal(number)
        return process.wait(20)

    def logs(self):
        text = ""
        for name in sorted(f for f in os.listdir(self.dir) if f.endswith(".log")):
            with open(f"{self.dir}/{name}") as f:
                text += f"--- {name}\n" + "".join(f.readlines()[-12:])
        return text

    def remove(self):
        for name in list(self.processes):
            self.end(name, signal.SIGKILL)
        shutil.rmtree(self.dir, ignore_errors=True)


def dropin(options):
    e = Etcd(options)
    try:
        dropin_alone(e)
        dropin_three(e)
        dropin_secure(e)
    finally:
        if failed:
            print(e.logs())
        e.remove()


def dropin_alone(e):
    base = free_base_port(1)
    url = f"http://127.0.0.1:{base}"
    sock = f"unix://{e.dir}/sock"
    flags = ["--data-dir", e.dir + "/alone", "--listen-client-urls", f"{url},{sock}",
             "--advertise-client-urls", url, f"--listen-peer-urls=http://127.0.0.1:{base + 1}",
             f"--listen-metrics-urls=http://127.0.0.1:{base + 2}", "--snapshot-count", "5",
             "--cors=https://a.page", "--host-whitelist", "127.0.0.1,localhost"]
    print("      called etcd: one node", flush=True)
    version = run([e.program, "--version"])
    check("etcd --version", version.ok and version.out.startswith("etcd Version: 3."), version)
    wrong = run([e.program, "--listen-client-url", url])
    check("a misspelt flag is exit code 2, with a suggestion",
          wrong.code == 2 and "did you mean --listen-client-urls?" in wrong.err, wrong)
    if not check("it comes up", e.start("alone", flags, env={"ETCD_NAME": "solo"})):
        with open(e.dir + "/alone.log") as f:
            print(f.read())
    line = e.said("alone", "serving client traffic insecurely")
    check("it says where it serves", line and line["address"] == f"127.0.0.1:{base}", line)
    warning = e.said("alone", "flag is ignored")
    check("a meaningless flag is warned about",
          warning and warning["flag"] == "--snapshot-count" and warning["level"] == "warn", warning)
    check("put", e.etcdctl("put", "a", "1", at=url).ok)
    check("get through a unix socket", e.get("a", at=sock) == "1")
    members = e.etcdctl("member", "list", "-w", "json", at=url).json["members"]
    check("the member is as told", [(m["name"], m["clientURLs"], m["peerURLs"]) for m in members]
          == [("solo", [url], ["http://localhost:2380"])], members)
    with urllib.request.urlopen(f"http://127.0.0.1:{base + 2}/health", timeout=10) as answer:
        check("the metrics port knows the health", b'"true"' in answer.read())
    for host, status in (("127.0.0.1", 200), ("a.page", 421)):
        answer = gateway.Gateway(url).post("/v3/kv/range", {"key": "YQ=="}, {"Host": host})
        check(f"the gateway answers {status} to {host}", answer[0] == status, answer)
    headers = {"Origin": "https://a.page"}
    with gateway.Gateway(url).open("/v3/kv/range", {"key": "YQ=="}, headers) as answer:
        check("the page that may read is named",
              answer.headers["Access-Control-Allow-Origin"] == "https://a.page", answer.headers)
    refused = e.etcdctl("get", "a", "--command-timeout=2s", at=f"127.0.0.1:{base + 2}")
    check("the metrics port serves no data", not refused.ok, refused)
    check("SIGTERM is exit code 0", e.end("alone") == 0)
    check("the socket is gone", not os.path.exists(e.dir + "/sock"))
    check("it starts again", e.start("alone", flags))
    check("with its data", e.get("a", at=url) == "1")
    e.end("alone")


def dropin_three(e):
    base = free_base_port(3)
    names = ["m-c", "m-a", "m-b"]
    client = {n: f"http://127.0.0.1:{base + 10 * i}" for i, n in enumerate(names)}
    peer = {n: f"http://127.0.0.1:{base + 10 * i + 1}" for i, n in enumerate(names)}

    def flags(name):
        return ["--name", name, "--data-dir", f"{e.dir}/{name}.etcd",
                "--listen-client-urls", client[name], "--advertise-client-urls", client[name],
                "--listen-peer-urls", peer[name], "--initial-advertise-peer-urls", peer[name],
                "--initial-cluster", ",".join(f"{n}={peer[n]}" for n in names),
                "--initial-cluster-token", "e2e", "--initial-cluster-state", "new"]

    print("      called etcd: three nodes", flush=True)
    for name in names:
        e.start(name, flags(name), wait=False)
    for name in names:
        check(f"{name} comes up", e.said(name, "ready to serve client requests"))
    for name in names:
        check(f"put at {name}", e.etcdctl("put", "at/" + name, name, at=client[name]).ok)
    for name in names:
        seen = [e.get("at/" + n, at=client[name]) for n in names]
        check(f"{name} reads what the others wrote", seen == names, seen)

    def members():
        found = e.etcdctl("member", "list", "-w", "json", at=client["m-a"])
        return {m["name"]: (m["ID"], m.get("clientURLs"), m["peerURLs"]) for m in found.json["members"]}
    before = members()
    check("the members are as told", {n: m[1:] for n, m in before.items()}
          == {n: ([client[n]], [peer[n]]) for n in names}, before)
    e.end("m-b", signal.SIGKILL)
    check("put without m-b", eventually(
        lambda: e.etcdctl("put", "later", "yes", at=client["m-a"]).ok, 10))
    # As after a first start: its own directory knows the members.
    rest = flags("m-b")
    check("m-b starts again", e.start("m-b", rest[:rest.index("--initial-cluster")]))
    check("m-b has caught up", eventually(lambda: e.get("later", at=client["m-b"]) == "yes", 10))
    for name in names:
        check(f"SIGTERM of {name} is exit code 0", e.end(name) == 0)
    for name in names:
        e.start(name, flags(name), wait=False)
    check("all start again", eventually(lambda: e.get("later", at=client["m-c"]) == "yes", 20))
    check("the members are the same", eventually(lambda: members() == before, 10), members())
    for name in names:
        e.end(name)


def dropin_secure(e):
    """By configuration files, with certificates as etcd wants them: by host, shared by the nodes."""
    base = free_base_port(3)
    certs = e.dir + "/certs"
    for name in ("node", "client"):
        run([e.polder, "certs", "create", "--dir", certs, "--name", name, "--ip", "127.0.0.1"])
    names = ["s0", "s1", "s2"]
    client = {n: f"https://127.0.0.1:{base + 10 * i}" for i, n in enumerate(names)}
    peer = {n: f"https://127.0.0.1:{base + 10 * i + 1}" for i, n in enumerate(names)}
    security = f"""
  cert-file: {certs}/node.crt
  key-file: {certs}/node.key
  trusted-ca-file: {certs}/ca.crt
  client-cert-auth: true
"""

    def begin(name, state="new", **more):
        with open(f"{e.dir}/{name}.yml", "w") as f:
            f.write(f"""
name: {name}
data-dir: {e.dir}/{name}
wal-dir:
listen-client-urls: {client[name]}
advertise-client-urls: {client[name]}
listen-peer-urls: {peer[name]}
initial-advertise-peer-urls: {peer[name]}
initial-cluster: {",".join(f"{n}={peer[n]}" for n in names)}
initial-cluster-state: {state}
log-outputs: [stderr]
client-transport-security:{security}
peer-transport-security:{security}
""")
        return e.start(name, [f"--config-file={e.dir}/{name}.yml"], **more)

    print("      called etcd: three nodes, TLS", flush=True)
    for name in names:
        begin(name, wait=False)
    for name in names:
        line = e.said(name, "serving client traffic securely")
        check(f"{name} serves securely", line and line["address"] == client[name][8:], line)
    plain = e.etcdctl("get", "a", "--command-timeout=2s", at=client["s0"])
    check("a client without certificate is refused", not plain.ok, plain)
    e.tls_flags = [f"--cacert={certs}/ca.crt", f"--cert={certs}/client.crt", f"--key={certs}/client.key"]
    check("put", e.etcdctl("put", "a", "1", at=client["s0"]).ok)
    check("get elsewhere", e.get("a", at=client["s2"]) == "1")
    shown = lambda: ssl.get_server_certificate(("127.0.0.1", base))
    before = shown()
    run([e.polder, "certs", "create", "--dir", certs, "--name", "node", "--ip", "127.0.0.1"])
    check("a renewed certificate is used without being told", eventually(lambda: shown() != before, 10))
    check("and connections go on", e.get("a", at=client["s0"]) == "1")
    e.end("s1", signal.SIGKILL)
    check("a killed node starts again", begin("s1", state="existing"))
    check("and reads", eventually(lambda: e.get("a", at=client["s1"]) == "1", 10))
    members = e.etcdctl("member", "list", "-w", "json", at=client["s1"]).json["members"]
    check("the members are as told", {m["name"]: m["peerURLs"][0] for m in members} == peer, members)
    for name in names:
        check(f"SIGTERM of {name} is exit code 0", e.end(name) == 0)


def surface(options):
    e = Etcd(options)
    try:
        surface_checks.run_all(check, e)
    finally:
        if failed:
            print(e.logs())
        e.remove()


def snapshots(options):
    run_snapshots(check, options)


def auth(options):
    auth_checks.suite(options, check)


def clients(options):
    clients_checks.check_all(check, options.polder, options.etcdctl[-1])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--polder", required=True)
    parser.add_argument("--only", help="single, region, two_regions, dropin, surface, clients, snapshots or auth")
    options = parser.parse_args()
    options.polder = os.path.abspath(options.polder)
    # Debian's (3.4) and whatever else comes first on the PATH.
    options.etcdctl = sorted({p for p in ("/usr/bin/etcdctl", shutil.which("etcdctl")) if p
                              and os.path.exists(p)}, reverse=True)
    began = time.time()
    for suite in (single, dropin, surface, clients, auth, snapshots, region, two_regions):
        if options.only and options.only != suite.__name__:
            continue
        try:
            suite(options)
        except Exception:
            check(f"{suite.__name__} ran to its end", False, traceback.format_exc())
    print(f"{time.time() - began:.0f} s", flush=True)
    print(f"{passed} passed, {failed} failed", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
