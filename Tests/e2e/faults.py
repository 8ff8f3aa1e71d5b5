#!/usr/bin/env python3
"""Real processes under load, killed, cut off and starved; then the books are compared.

    Tests/e2e/faults.py [--polder POLDER] [--seconds 180] [--only WORD] [--out DIR]

Writers put unique values to a few keys and fail over between the nodes of their region, readers read
linearizably, and every node has a watcher from the first revision on that resumes where it broke off.
Afterwards: what was acknowledged is there, no revision was given twice, all watchers saw the same
history without gaps, and all replicas hash to the same. Scenarios that no longer fit into --seconds are
skipped and said so. The last line is `N passed, N failed`; evidence of failures is kept in --out.
"""
import argparse, collections, json, os, random, shutil, signal, subprocess, sys, tempfile
import threading, time, traceback

import histories
from cluster import Cluster, eventually, run
from damage import damage_log, damage_tables, newest_segment
from etcd_client import CallFailed, Client, grpc

passed, failed, skipped = 0, 0, []
PREFIX, END = "/chaos/", "/chaos0"


def check(name, condition, detail=""):
    global passed, failed
    if condition:
        passed += 1
        print(f"ok    {name}", flush=True)
    else:
        failed += 1
        print(f"FAIL  {name}  {str(detail)[:1500]}", flush=True)
    return bool(condition)


def figure(text):
    print(f"      {text}", flush=True)


class FaultCluster(Cluster):
    """Starts on a directory of its own that stays after a failure; fault injection is on."""

    def __init__(self, polder, base_port, directory, regions=2, nodes=3, tls=True):
        self.polder, self.etcdctl_path = os.path.abspath(polder), shutil.which("etcdctl")
        self.dir, self.base = directory, base_port
        os.makedirs(directory, exist_ok=True)
        self.flags = ["--regions", str(regions), "--nodes", str(nodes), "--base-port", str(base_port),
                      "--enable-fault-injection"] + ([] if tls else ["--no-tls"])
        self.process = None
        self.start()

    def names(self, region):
        return [name for name in self.nodes if name.startswith(region + "-")]

    def client(self, name):
        return Client(self.nodes[name]["client"], self.description["tls"])

    def status(self, name):
        return json.loads(self.http("/polder/status", name)[1])

    def sequencer(self, region):
        def ask():
            for name in self.names(region):
                try:
                    found = self.status(name)["sequencer"]
                except OSError:
                    continue
                if found:
                    return found["node"]
        return eventually(ask, 10)

    def kill(self, name):
        """Straight to the process: faster than a command."""
        os.kill(self.nodes[name]["pid"], signal.SIGKILL)

    def is_dead(self, name):
        try:
            with open(f"/proc/{self.nodes[name]['pid']}/stat") as f:
                return f.read().rsplit(")", 1)[1].split()[0] == "Z"
        except OSError:
            return True

    def wait_dead(self, name):
        """Until `polder dev` has seen it, too: before that it takes the node for a running one."""
        return eventually(lambda: not os.path.exists(f"/proc/{self.nodes[name]['pid']}"), 5, 0.02)

    def start_node(self, name):
        # `polder dev` needs a moment to see that the process has ended.
        answer = None
        for _ in range(20):
            answer = self.dev_node("start", name)
            if answer.ok or "is running" not in answer.err:
                break
            time.sleep(0.1)
        return answer

    def cut(self, from_region, peer_region, block):
        for name in self.names(from_region):
            path = f"/polder/fault?peer={peer_region}" + ("&block=true" if block else "")
            code, body = self.http(path, name, method="POST")
            if code != 200:
                raise RuntimeError(f"{name}: {code} {body}")

    def lag(self, region):
        """Seconds, the worst that the region's nodes know, or None if none knows."""
        known = []
        for name in self.names(region):
            lines = self.http("/metrics", name)[1].splitlines()
            known += [float(line.split()[-1]) for line in lines
                      if line.startswith("polder_geo_lag_seconds{")]
        return max(known) if known else None


# MARK: Load

class Writer(threading.Thread):
    """Unique values to few keys, about `rate` a second, at the nodes of a region in turn."""

    def __init__(self, load, number, names, rate):
        super().__init__(daemon=True)
        self.load, self.number, self.names, self.rate = load, number, names, rate
        # (key, value, revision), and (key, value) whose outcome nobody told.
        self.acknowledged, self.unknown, self.successes = [], [], []
        self.errors = collections.Counter()
        self.history = []
        self.luck = random.Random(f"{load.tag}{number}")

    def run(self):
        at, count = self.number, 0
        while not self.load.stopping.is_set():
            count += 1
            key = f"{PREFIX}{self.load.tag}k{self.luck.randrange(12)}"
            value = f"{self.load.tag}w{self.number}-{count}"
            began = time.time()
            try:
                revision = self.load.clients[self.names[at % len(self.names)]].put(key, value, 2.0)
                ended = time.time()
                self.acknowledged.append((key, value, revision))
                self.successes.append((began, ended))
                self.history.append(histories.line(f"w{self.number}", began, ended, f"write {key} {value}"))
            except CallFailed as error:
                self.unknown.append((key, value))
                self.history.append(histories.line(f"w{self.number}", began, None, f"write {key} {value}"))
                self.errors[f"{error.code}: {error.details}"[:90]] += 1
                at += 1
                time.sleep(0.02)
            time.sleep(max(0, 1 / self.rate - (time.time() - began)))


class Reader(threading.Thread):
    """Linearizable reads: never older than what was acknowledged before the read began."""

    def __init__(self, load, number, names, rate):
        super().__init__(daemon=True)
        self.load, self.number, self.names, self.rate = load, number, names, rate
        self.reads, self.stale, self.seen = 0, [], []
        self.history = []

    def run(self):
        at, luck = self.number, random.Random(self.number)
        while not self.load.stopping.is_set():
            began = time.time()
            key = f"{PREFIX}{self.load.tag}k{luck.randrange(12)}"
            known = max((a[2] for w in self.load.writers if w.names == self.names
                         for a in w.acknowledged[-40:] if a[0] == key), default=0)
            name = self.names[at % len(self.names)]
            try:
                revision, found = self.load.clients[name].range(key, timeout=2.0)
                self.reads += 1
                what = f"read {key} {found[0].value}" if found else f"absent {key}"
                self.history.append(histories.line(f"r{self.number}", began, time.time(), what))
                modified = found[0].modified if found else 0
                if modified < known or revision < known:
                    self.stale.append((name, key, known, modified, revision))
                if found:
                    self.seen.append((key, found[0].value, modified))
            except CallFailed:
                at += 1
                time.sleep(0.02)
            time.sleep(max(0, 1 / self.rate - (time.time() - began)))


class Watcher(threading.Thread):
    """Everything under the prefix, from the first revision on, at one node."""

    def __init__(self, cluster, name, begin=1):
        super().__init__(daemon=True)
        self.cluster, self.name, self.begin = cluster, name, begin
        self.events, self.resumed, self.cancelled = [], 0, []
        self.header = 0
        self.stopping = threading.Event()
        self.client = cluster.client(name)

    def run(self):
        following = self.begin
        while not self.stopping.is_set():
            try:
                for revision, events in self.client.watch(PREFIX, END, following, self.stopping):
                    self.header = max(self.header, revision)
                    for kind, kv in events:
                        self.events.append((kv.modified, kv.key, kv.value, kind))
                    # A revision's events come together: no half of one is lost by resuming.
                    if events:
                        following = events[-1][1].modified + 1
            except CallFailed as error:
                self.resumed += 1
                if error.code == "CANCELLED" and not self.stopping.is_set():
                    self.cancelled.append(error.details)
            self.stopping.wait(0.05)


class Load:
    def __init__(self, cluster, tag, regions=("r1",), writers=4, rate=25, readers=2, watch=True,
                 begin=1):
        self.cluster, self.tag, self.regions = cluster, tag, regions
        self.stopping = threading.Event()
        names = [n for r in regions for n in cluster.names(r)]
        self.clients = {n: cluster.client(n) for n in names}
        self.writers = [Writer(self, i, cluster.names(r), rate)
                        for r in regions for i in range(writers)]
        # Numbers are unique over the regions, so values are.
        for i, w in enumerate(self.writers):
            w.number = i
        self.readers = [Reader(self, i, cluster.names(r), rate)
                        for r in regions for i in range(readers)]
        self.watchers = [Watcher(cluster, n, begin) for n in names] if watch else []
        for thread in self.watchers + self.writers + self.readers:
            thread.start()

    def stop(self):
        self.stopping.set()
        for thread in self.writers + self.readers:
            thread.join(10)

    def close(self):
        self.stop()
        for w in self.watchers:
            w.stopping.set()
            # Ends the call that waits for events.
            w.client.close()
        for w in self.watchers:
            w.join(5)
        for c in self.clients.values():
            c.close()

    def of(self, region):
        names = self.cluster.names(region)
        return [w for w in self.writers if w.names == names]

    def acknowledged(self, region):
        return [a for w in self.of(region) for a in w.acknowledged]

    def gaps(self, region):
        """Longest time without a success: of all writers together, and of the unluckiest."""
        together = sorted(end for w in self.of(region) for _, end in w.successes)
        def longest(ends):
            return max((b - a for a, b in zip(ends, ends[1:])), default=0)
        each = max((longest([e for _, e in w.successes]) for w in self.of(region)), default=0)
        return longest(together), each


# MARK: The books

def compare_books(what, cluster, load, region):
    """After the load has stopped and all nodes run."""
    acknowledged = load.acknowledged(region)
    names = cluster.names(region)
    last = max((a[2] for a in acknowledged), default=0)

    def final():
        try:
            return load.clients[names[0]].range(PREFIX, END, timeout=5)
        except CallFailed:
            return None
    final = eventually(final, 15)
    if not check(f"{what}: {region} answers afterwards", final):
        return
    revision, pairs = final
    now = {kv.key: kv for kv in pairs}
    top = max([kv.modified for kv in pairs] + [last])
    # The watchers must reach the newest change.
    watchers = [w for w in load.watchers if w.name in names]
    eventually(lambda: all(w.events and w.events[-1][0] >= top for w in watchers), 15)

    by_revision = {}
    doubles = []
    for key, value, at in acknowledged:
        if by_revision.setdefault(at, (key, value)) != (key, value):
            doubles.append((at, by_revision[at], (key, value)))
    check(f"{what}: no revision was acknowledged twice ({len(acknowledged)} writes)", not doubles,
          doubles[:5])
    newest = {}
    for key, value, at in acknowledged:
        newest[key] = max(newest.get(key, (0, "")), (at, value))
    missing = [(key, at, value, now[key].modified if key in now else None)
               for key, (at, value) in newest.items()
               if key not in now or now[key].modified < at
               or now[key].modified == at and now[key].value != value]
    check(f"{what}: every acknowledged write is there or was overwritten later", not missing,
          missing[:5])
    stale = [s for r in load.readers if r.names == names for s in r.stale]
    reads = sum(r.reads for r in load.readers if r.names == names)
    check(f"{what}: no stale read in {reads} linearizable ones", not stale, stale[:5])

    # Of one region alone: what another region writes comes in by a way of its own.
    if len(load.regions) == 1:
        path = f"{cluster.dir}/history-{load.tag}-{region}.txt"
        histories.write(path, (each for t in load.writers + load.readers for each in t.history))
        verdict, good = histories.check(cluster.polder, path)
        check(f"{what}: {region}'s history is linearizable", good, verdict)

    watched = {w.name: w.events for w in watchers}
    for name, events in watched.items():
        # A batch from the other region has several keys at one revision.
        order = [e[:2] for e in events]
        wrong = [(a, b) for a, b in zip(order, order[1:]) if a[0] > b[0]]
        wrong += [e for e, n in collections.Counter(order).items() if n > 1]
        check(f"{what}: {name}'s watch is ordered and without doubles ({len(events)} events, resumed "
              f"{next(w.resumed for w in watchers if w.name == name)} times)", not wrong, wrong[:5])
    if watched:
        reference = watched[names[0]]
        for name in names[1:]:
            a, b = set(reference), set(watched[name])
            check(f"{what}: {name}'s watch equals {names[0]}'s", reference == watched[name],
                  f"only {names[0]}: {sorted(a - b)[:5]} only {name}: {sorted(b - a)[:5]}")
        written = {e[:2]: e[2] for e in reference}
        lost = [(at, kv) for at, kv in by_revision.items() if written.get((at, kv[0])) != kv[1]]
        check(f"{what}: the watch shows every acknowledged write at its revision", not lost, lost[:5])
        wrong = [s for r in load.readers if r.names == names for s in r.seen
                 if written.get((s[2], s[0])) != s[1]]
        check(f"{what}: what was read is what was written at that revision", not wrong, wrong[:5])
        # Values are unique, so a write that was executed twice shows.
        mine = PREFIX + load.tag + "k"
        values = collections.Counter(e[2] for e in reference if e[1].startswith(mine) and e[3] == 0)
        twice = [v for v, n in values.items() if n > 1]
        check(f"{what}: no write was executed twice", not twice, twice[:5])
        check(f"{what}: no watch was cancelled", not any(w.cancelled for w in watchers),
              [(w.name, w.cancelled) for w in watchers])
    hashes = {}
    for name in names:
        def ask():
            try:
                return load.clients[name].hash_kv(top)
            except CallFailed as error:
                hashes[name] = str(error)
        hashes[name] = eventually(ask, 10) or hashes.get(name)
    check(f"{what}: {region}'s nodes hash to the same at revision {top}", len(set(hashes.values())) == 1
          and all(isinstance(h, tuple) for h in hashes.values()), hashes)
    together, each = load.gaps(region)
    unknown = sum(len(w.unknown) for w in load.of(region))
    figure(f"{region}: {len(acknowledged)} acknowledged, {unknown} unknown; longest gap "
           f"{together * 1000:.0f} ms, of one writer {each * 1000:.0f} ms")
    errors = collections.Counter()
    for w in load.of(region):
        errors.update(w.errors)
    for text, count in errors.most_common(4):
        figure(f"{count} x {text}")


def visible(cluster, region):
    for name in cluster.names(region):
        client = cluster.client(name)
        try:
            return {kv.key: kv.value for kv in client.range(PREFIX, END, timeout=5)[1]}
        except CallFailed:
            continue
        finally:
            client.close()


def check_converged(what, cluster, seconds=20):
    """Fresh writes on both sides first: replication that is dead cannot hide behind silence."""
    began = time.time()
    for region in ("r1", "r2"):
        def put():
            client = cluster.client(random.choice(cluster.names(region)))
            try:
                return client.put(f"{PREFIX}from-{region}", f"{what} {began}", 2)
            except CallFailed:
                return None
            finally:
                client.close()
        check(f"{what}: {region} takes writes", eventually(put, 10))
    for origin, region in (("r1", "r2"), ("r2", "r1")):
        arrived = eventually(
            lambda: (visible(cluster, region) or {}).get(f"{PREFIX}from-{origin}")
            == f"{what} {began}", seconds)
        detail = {}
        if not arrived:
            for name in cluster.names("r1") + cluster.names("r2"):
                try:
                    detail[name] = [r for r in cluster.status(name)["regions"] if "nodes" not in r]
                except OSError as error:
                    detail[name] = str(error)
        check(f"{what}: what {origin} writes arrives in {region}", arrived, detail)
    equal = eventually(lambda: visible(cluster, "r1") == visible(cluster, "r2"), seconds)
    a, b = visible(cluster, "r1") or {}, visible(cluster, "r2") or {}
    check(f"{what}: both regions hold the same ({len(a)} keys)", equal,
          [(k, a.get(k), b.get(k)) for k in sorted(set(a) | set(b)) if a.get(k) != b.get(k)][:8])
    figure(f"both directions after {time.time() - began:.1f} s")


# MARK: Scenarios on one cluster

def kill_each(c):
    """kill -9 of each node of r1 in turn."""
    load = Load(c, "e")
    time.sleep(2)
    for name in c.names("r1"):
        c.kill(name)
        c.wait_dead(name)
        time.sleep(2)
        answer = c.start_node(name)
        check(f"kill each: {name} starts again", answer.ok, answer)
        time.sleep(2)
    load.stop()
    compare_books("kill each", c, load, "r1")
    check_converged("kill each", c)
    load.close()


def kill_all_and_start(c):
    """kill -9 of all six at once; the nodes are started one by one."""
    load = Load(c, "a", regions=("r1", "r2"), writers=3, rate=15, readers=1)
    time.sleep(3)
    for name in list(c.nodes):
        c.kill(name)
    for name in list(c.nodes):
        c.wait_dead(name)
    time.sleep(0.5)
    for name in list(c.nodes):
        # The first ones cannot serve before a majority is there.
        answer = run([c.polder, "dev-node", "start", name, "--data-dir", c.dir, "--no-wait"])
        if not answer.ok:
            time.sleep(0.5)
            answer = run([c.polder, "dev-node", "start", name, "--data-dir", c.dir, "--no-wait"])
        check(f"kill all: {name} starts again", answer.ok, answer)
    c.read_description()
    before = time.time()
    back = lambda region: any(w.successes and w.successes[-1][1] > before for w in load.of(region))
    for region in ("r1", "r2"):
        check(f"kill all: {region} is back", eventually(lambda: back(region), 20))
    time.sleep(1.5)
    load.stop()
    for region in ("r1", "r2"):
        compare_books("kill all", c, load, region)
    check_converged("kill all", c)
    load.close()


def kill_all_and_dev(c):
    """kill -9 of everything, `polder dev` included; it is started again on the directory."""
    load = Load(c, "d", regions=("r1", "r2"), writers=3, rate=15, readers=1, watch=False)
    time.sleep(3)
    for name in list(c.nodes):
        c.kill(name)
    c.process.kill()
    c.process.wait()
    for name in list(c.nodes):
        c.wait_dead(name)
    load.stop()
    c.start()
    for region in ("r1", "r2"):
        compare_books("kill dev", c, load, region)
    check_converged("kill dev", c)
    load.close()


def cut_regions(c, seconds=15):
    """r2 cut off from r1, the same keys written on both sides."""
    load = Load(c, "c", regions=("r1", "r2"), writers=2, rate=10, readers=1)
    time.sleep(2)
    c.cut("r1", "r2", True)
    c.cut("r2", "r1", True)
    time.sleep(seconds)
    lags = {r: c.lag(r) for r in ("r1", "r2")}
    for region, lag in lags.items():
        check(f"cut: {region} knows that it is behind ({lag})", lag and lag > seconds / 2, lag)
    for region in ("r1", "r2"):
        together, _ = load.gaps(region)
        check(f"cut: {region} went on by itself (longest gap {together * 1000:.0f} ms)",
              together < seconds / 3)
    c.cut("r1", "r2", False)
    c.cut("r2", "r1", False)
    healed = time.time()
    time.sleep(1)
    load.stop()
    for region in ("r1", "r2"):
        compare_books_after_conflicts("cut", c, load, region)
    check_converged("cut", c)
    figure(f"healed and equal after {time.time() - healed:.1f} s at most")
    for region in ("r1", "r2"):
        low = eventually(lambda: (c.lag(region) or 99) < 1.5, 15)
        check(f"cut: {region}'s lag is over ({c.lag(region)})", low, c.lag(region))
    answer = run([c.polder, "conflicts", "list", "--dev", c.dir])
    lines = [l for l in answer.out.splitlines() if PREFIX in l]
    check(f"cut: the conflicts are listed ({len(lines)})", answer.ok and lines, answer)
    load.close()


def compare_books_after_conflicts(what, c, load, region):
    """As above, but an acknowledged write may also have lost to the other region's."""
    names = c.names(region)
    acknowledged = load.acknowledged(region)
    reached = max(a[2] for a in acknowledged)
    watchers = [w for w in load.watchers if w.name in names]
    check(f"{what}: {region}'s watches reach the newest write",
          eventually(lambda: all(w.events and w.events[-1][0] >= reached for w in watchers), 15))
    written = {}
    for w in watchers:
        for e in list(w.events):
            written.setdefault(e[0], set()).add(e[1:3])
    lost = [a for a in acknowledged if (a[0], a[1]) not in written.get(a[2], ())]
    check(f"{what}: {region}'s watch shows every acknowledged write at its revision", not lost, lost[:5])
    stale = [s for r in load.readers if r.names == names for s in r.stale]
    check(f"{what}: no stale read in {region}", not stale, stale[:5])


def links_after_crashes(c):
    """Sequencers of both regions crash, twice in a row: replication goes on in both directions."""
    check_converged("crashes", c)
    for turn, region in enumerate(("r1", "r1", "r2", "r2")):
        name = c.sequencer(region)
        if not check(f"crashes: {region} has a sequencer ({name})", name):
            return
        c.kill(name)
        c.wait_dead(name)
        time.sleep(0.3)
        answer = c.start_node(name)
        check(f"crashes: {name} starts again", answer.ok, answer)
        time.sleep(1)
        check_converged(f"crashes {turn + 1} ({name})", c)


def links_from_nothing(c):
    """Nothing was ever replicated, and the receiving region crashes as a whole before the first
    write: the streams must still begin."""
    for region in ("r2", "r1"):
        for name in c.names(region):
            c.kill(name)
        for name in c.names(region):
            c.wait_dead(name)
        time.sleep(0.4)
        for name in c.names(region):
            run([c.polder, "dev-node", "start", name, "--data-dir", c.dir, "--no-wait"])
        c.read_description()
        eventually(lambda: c.sequencer(region), 15)
    check_converged("from nothing", c)


def freeze(c):
    """A node of r1 stands still for three seconds, then goes on."""
    load = Load(c, "f")
    time.sleep(2)
    name = c.sequencer("r1")
    check("freeze: frozen", c.dev_node("freeze", name).ok)
    time.sleep(3)
    check("freeze: thawed", c.dev_node("thaw", name).ok)
    time.sleep(3)
    load.stop()
    compare_books("freeze", c, load, "r1")
    load.close()


def wipe(c):
    """A node's data removed while the others are healthy: it comes back by snapshot."""
    load = Load(c, "x", writers=2, readers=1, watch=False)
    name = c.names("r1")[2]
    check(f"wipe: {name}", c.dev_node("wipe", name).ok)
    answer = c.start_node(name)
    check("wipe: it starts again", answer.ok, answer)
    time.sleep(2)
    load.stop()
    compare_books("wipe", c, load, "r1")
    load.close()


# MARK: The store

def log_lines(c, name, words):
    with open(f"{c.dir}/{name}/log") as f:
        return [line.strip() for line in f if words in line]


def fill_tables(c, region="r1", megabytes=40):
    """Until every node's store has files."""
    client, luck = c.client(c.names(region)[0]), random.Random(3)
    for number in range(megabytes * 2):
        client.put(f"/bulk/{number:04}", luck.randbytes(1 << 19), 10)
    client.close()
    def tables():
        return all(any(n.endswith(".sst") for n in os.listdir(c.nodes[name]["dataDir"] + "/store"))
                   for name in c.names(region))
    check("damaged store: every node has tables", eventually(tables, 10))


def damaged_store(c):
    """Tables of one node's store are damaged, which a scan, a compaction, a read or a start finds: it gets another's."""
    fill_tables(c)
    load = Load(c, "s")
    time.sleep(1)
    replaced = "the damaged store has been replaced"
    ways = ("scan", "compaction", "start", "read")
    for way, name in zip(ways, ("r1-n2", c.sequencer("r1"), "r1-n1", "r1-n3")):
        data, pid = c.nodes[name]["dataDir"], c.nodes[name]["pid"]
        before = len(log_lines(c, name, replaced))
        client = c.client(name)
        began = time.time()
        count = damage_tables(data + "/store")
        try:
            if way == "scan":
                client.hash_kv(0)
            elif way == "compaction":
                c.etcdctl("defrag", at=name)
            elif way == "read":
                client.range("/bulk/", "/bulk0", timeout=10)
            else:
                c.kill(name)
                c.wait_dead(name)
                c.start_node(name)
                pid = c.nodes[name]["pid"]
                client.hash_kv(0)
        except CallFailed as failure:
            figure(f"{way}: {failure.code}: {failure.details}")
        client.close()
        found = eventually(lambda: len(log_lines(c, name, replaced)) > before, 15)
        check(f"damaged store: {name} has replaced it after a {way} ({count} tables damaged)", found,
              c.logs())
        check(f"damaged store: {name} serves again", eventually(lambda: serving(c, name), 10))
        figure(f"{way}: {name} serves again after {time.time() - began:.1f} s")
        check(f"damaged store: {name} is still the same process",
              c.nodes[name]["pid"] == pid and not c.is_dead(name))
        check(f"damaged store: nothing of it is left", not set(os.listdir(data)) & {
            "store-damaged", "store-incoming", "store-old"}, os.listdir(data))
        time.sleep(1)
    load.stop()
    compare_books("damaged store", c, load, "r1")
    load.close()


def slow_disk(c):
    """The disk of the node that leads becomes slow: others lead, and it stays so."""
    load = Load(c, "l")
    time.sleep(2)
    name = c.sequencer("r1")
    words = "this node's disk is slow"
    before = {n: len(log_lines(c, n, words)) for n in c.names("r1")}
    code, body = c.http("/polder/fault?disk=300ms", name, method="POST")
    check(f"slow disk: {name}'s is slow", code == 200, body)
    began = time.time()

    def led_by_others():
        for other in c.names("r1"):
            if other == name:
                continue
            status = c.status(other)
            leads = status["sequencer"]
            if leads and leads["node"] != name:
                return all(p.get("leader") not in (None, name) for p in status["partitions"])
    check("slow disk: others lead everything", eventually(led_by_others, 15))
    figure(f"led by others after {time.time() - began:.1f} s")
    time.sleep(8)
    check("slow disk: it leads nothing later either", led_by_others())
    moves = {n: len(log_lines(c, n, words)) - before[n] for n in c.names("r1")}
    code, body = c.http("/readyz", name)
    check("slow disk: readyz says so", code == 503 and "[-]disk_speed failed" in body, body)
    check("slow disk: one hand-over was enough", moves == {n: int(n == name) for n in moves}, moves)
    check("slow disk: the fault ends", c.http("/polder/fault?disk=0s", name, method="POST")[0] == 200)
    check("slow disk: and readyz forgets it", eventually(lambda: c.http("/readyz", name)[0] == 200, 15))
    load.stop()
    compare_books("slow disk", c, load, "r1")
    load.close()


# MARK: The data directory

def serve(c, name, *flags):
    return run([c.polder, "serve", "-c", f"{c.dir}/{name}/node.yaml", *flags], timeout=8)


def directory(c):
    name, other = "r1-n2", "r1-n1"
    data = c.nodes[name]["dataDir"]
    answer = serve(c, name)
    check("directory: a second process is refused with exit code 3", answer.code == 3, answer)
    figure(answer.err.strip().splitlines()[-1] if answer.err.strip() else "no reason given")
    load = Load(c, "t", writers=2, readers=1, watch=False)
    time.sleep(1.5)
    c.kill(name)
    c.wait_dead(name)
    time.sleep(0.5)
    # Another node's directory under this node's configuration.
    with open(f"{c.dir}/{name}/node.yaml") as f:
        text = f.read()
    foreign = f"{c.dir}/foreign.yaml"
    copy = f"{c.dir}/foreign-data"
    shutil.copytree(c.nodes[other]["dataDir"], copy, ignore=shutil.ignore_patterns("wal", "store"))
    with open(foreign, "w") as f:
        f.write(text.replace(f'"{data}"', f'"{copy}"'))
    answer = run([c.polder, "serve", "-c", foreign], timeout=8)
    check("directory: another node's is refused with exit code 3",
          answer.code == 3 and "belongs to" in answer.err, answer)
    figure(answer.err.strip().splitlines()[-1] if answer.err.strip() else "no reason given")
    # A torn tail: the last batch is half there.
    path, batches = newest_segment(data)
    size = os.path.getsize(path)
    if check(f"directory: the log has batches to tear ({len(batches)})", len(batches) > 4):
        at, length = batches[-1]
        with open(path, "r+b") as f:
            f.truncate(at + length // 2)
            f.truncate(size)
        answer = c.start_node(name)
        check("directory: a torn tail is cut, and the node starts", answer.ok, answer)
    load.stop()
    compare_books("directory", c, load, "r1")
    load.close()


def damaged_log(c):
    """A node's log is damaged in the middle: it does not vote from it, and comes in anew."""
    load = Load(c, "m", writers=2, readers=1)
    time.sleep(1.5)
    words = "data is damaged and is set aside"
    for name in ("r1-n2", None):
        name = name or c.sequencer("r1")
        data = c.nodes[name]["dataDir"]
        before = len(log_lines(c, name, words))
        c.kill(name)
        c.wait_dead(name)
        check(f"damaged log: {name} has one to damage", damage_log(data))
        began = time.time()
        c.start_node(name)
        check(f"damaged log: {name} sets it aside",
              eventually(lambda: len(log_lines(c, name, words)) > before, 15), c.logs())
        check(f"damaged log: {name} serves again", eventually(lambda: serving(c, name), 20), c.logs())
        figure(f"{name} serves again after {time.time() - began:.1f} s")
        check("damaged log: what was set aside goes then", eventually(
            lambda: not [n for n in os.listdir(data) if n.startswith("set-aside")], 10), os.listdir(data))
        time.sleep(1)
    load.stop()
    compare_books("damaged log", c, load, "r1")
    load.close()


def full_disk(args, root):
    """One node on a small tmpfs."""
    mount = root + "/small"
    os.makedirs(mount)
    done = run(["mount", "-t", "tmpfs", "-o", "size=800m", "tmpfs", mount])
    if not done.ok:
        skipped.append("full disk (no right to mount a tmpfs)")
        return
    c = None
    try:
        with open(mount + "/ballast", "wb") as f:
            os.posix_fallocate(f.fileno(), 0, 200 << 20)
        c = FaultCluster(args.polder, args.base_port + 300, mount + "/data", 1, 1, tls=False)
        client = c.client("r1-n1")
        acknowledged, error, luck = {}, None, random.Random(1)
        for number in range(600):
            key = f"{PREFIX}{number:04}"
            try:
                # Nothing that compresses.
                client.put(key, f"{number} ".encode() + luck.randbytes(1 << 20), 10)
                acknowledged[key] = number
            except CallFailed as failure:
                error = failure
                break
        check(f"full disk: writes are refused as etcd does ({error})",
              error and error.details == "etcdserver: mvcc: database space exceeded", error)
        check(f"full disk: not before it is nearly full ({len(acknowledged)} MiB written)",
              len(acknowledged) > 50)
        check("full disk: the node is alive", not c.is_dead("r1-n1"))

        def same():
            bad = []
            for key, number in acknowledged.items():
                try:
                    found = client.range(key, timeout=5)[1]
                except CallFailed as failure:
                    bad.append((key, str(failure)))
                    break
                if not found or not found[0].value.startswith(f"{number} ".encode()):
                    bad.append(key)
            return bad
        bad = same()
        check(f"full disk: all of {len(acknowledged)} acknowledged writes are readable", not bad, bad[:3])
        for turn in range(3):
            try:
                client.put(f"{PREFIX}more{turn}", luck.randbytes(1 << 20), 5)
            except CallFailed:
                pass
        os.remove(mount + "/ballast")

        def put():
            try:
                return client.put(PREFIX + "after", "x", 2)
            except CallFailed:
                return None
        began = time.time()
        check("full disk: it takes writes again when there is space", eventually(put, 20))
        figure(f"again after {time.time() - began:.1f} s")
        c.kill("r1-n1")
        c.wait_dead("r1-n1")
        answer = c.start_node("r1-n1")
        check("full disk: it starts again after a kill", answer.ok, answer)
        bad = eventually(lambda: not same(), 10)
        check("full disk: every acknowledged write is there after it", bad, same()[:3])
        client.close()
    finally:
        if c:
            c.stop()
            if failed:
                print(c.logs())
        run(["umount", mount])


def full_disk_of_one(args, root):
    """One node of three on a small tmpfs that something else fills, under load."""
    at = root + "/three"
    c = None
    mounts = []
    try:
        c = FaultCluster(args.polder, args.base_port + 400, at, 1, 3, tls=False)
        # The sequencer's and leaders' node gets the small disk.
        name = c.sequencer("r1")
        data, mount = c.nodes[name]["dataDir"], root + "/small-one"
        check("full disk of one: stopped for its new disk", c.dev_node("kill", name).ok)
        os.makedirs(mount)
        if not run(["mount", "-t", "tmpfs", "-o", "size=700m", "tmpfs", mount]).ok:
            skipped.append("full disk of one (no right to mount a tmpfs)")
            return
        mounts.append(mount)
        shutil.copytree(data, mount + "/data")
        shutil.rmtree(data)
        os.symlink(mount + "/data", data)
        check("full disk of one: started on it", c.start_node(name).ok)
        client = c.client(name)

        def leads():
            leader = c.sequencer("r1")
            if leader == name:
                return True
            ids = {n["name"]: n["id"] for n in c.status(name)["regions"][0]["nodes"]}
            c.etcdctl("move-leader", ids[name], at=leader)
        check("full disk of one: it leads", eventually(leads, 10))
        load = Load(c, "y")
        time.sleep(2)
        began = time.time()
        with open(mount + "/ballast", "wb") as f:
            os.posix_fallocate(f.fileno(), 0, shutil.disk_usage(mount).free - (40 << 20))
        refusal = None
        def refused():
            nonlocal refusal
            try:
                client.put(PREFIX + "probe", "x", 2)
            except CallFailed as failure:
                refusal = failure
                return True
        check(f"full disk of one: it refuses writes", eventually(refused, 5, 0.02), refusal)
        check(f"full disk of one: with a clear error ({refusal and refusal.details})",
              refusal and any(w in refusal.details for w in ("space", "disk", "Socket", "reset", "GOAWAY", "connect")))
        other = next(n for n in c.names("r1") if n != name)
        def led_elsewhere():
            leads = c.status(other)["sequencer"]
            return leads and leads["node"] != name
        check("full disk of one: others lead", eventually(led_elsewhere, 10))
        figure(f"led elsewhere after {time.time() - began:.1f} s")
        def waits():
            try:
                code, text = c.http("/readyz", name)
                return code == 503 and "disk is full" in text and c.http("/livez", name)[0] == 200
            except OSError:
                return False
        check("full disk of one: it waits, and says why", eventually(waits, 10))
        listed = c.etcdctl("alarm", "list", at=other)
        check("full disk of one: the others list its alarm", "NOSPACE" in listed.out, listed)
        check("full disk of one: the others are healthy", c.http("/health", other)[0] == 200)
        time.sleep(3)
        os.remove(mount + "/ballast")
        freed = time.time()
        check("full disk of one: it serves again when there is space", eventually(lambda: serving(c, name), 15))
        figure(f"again after {time.time() - freed:.1f} s")
        listed = eventually(lambda: "NOSPACE" not in c.etcdctl("alarm", "list", at=other).out, 10)
        check("full disk of one: the alarm is gone", listed)
        check("full disk of one: it is still the same process", not c.is_dead(name))
        load.stop()
        compare_books("full disk of one", c, load, "r1")
        errors = collections.Counter()
        for w in load.of("r1"):
            errors.update({t: n for t, n in w.errors.items() if "space exceeded" in t})
        figure(f"writers were refused {sum(errors.values())} times for want of space")
        load.close()
        client.close()
    finally:
        if c:
            c.stop()
            if failed:
                print(c.logs())
        for mount in mounts:
            run(["umount", mount])


# Name, function, seconds that it is expected to take.
SCENARIOS = [
    ("links_from_nothing", links_from_nothing, 15), ("kill_each", kill_each, 35),
    ("links_after_crashes", links_after_crashes, 25), ("kill_all_and_start", kill_all_and_start, 20),
    ("cut_regions", cut_regions, 30), ("freeze", freeze, 15), ("directory", directory, 15),
    ("damaged_store", damaged_store, 35), ("damaged_log", damaged_log, 20), ("slow_disk", slow_disk, 22),
    ("kill_all_and_dev", kill_all_and_dev, 15), ("wipe", wipe, 8),
]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--polder", default=".build/release/polder")
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--base-port", type=int, default=31000)
    parser.add_argument("--only", default="", help="scenarios whose names contain this")
    parser.add_argument("--out", default="", help="keep evidence here (otherwise only of failures)")
    args = parser.parse_args()
    if grpc is None:
        print("skipped: python's grpcio is missing (pip install grpcio)")
        return 0
    if not os.access(args.polder, os.X_OK):
        print(f"there is no {args.polder}: make build, or name another")
        return 2
    began = time.time()
    root = args.out or tempfile.mkdtemp(prefix="polder-faults-")
    os.makedirs(root, exist_ok=True)
    wanted = [s for s in SCENARIOS if args.only in s[0]]
    cluster = None
    try:
        if wanted:
            cluster = FaultCluster(args.polder, args.base_port, root + "/cluster")
        for name, scenario, expected in wanted:
            if time.time() - began + expected > args.seconds:
                skipped.append(name)
                continue
            print(f"----  {name}: {(scenario.__doc__ or '').strip()}", flush=True)
            start = time.time()
            try:
                scenario(cluster)
            except Exception:
                check(f"{name} runs to its end", False, traceback.format_exc())
            figure(f"took {time.time() - start:.1f} s")
        if cluster:
            dead = [n for n in cluster.nodes if not serving(cluster, n)]
            check("all nodes serve in the end", not dead, dead)
            cluster.stop()
        for scenario in (full_disk, full_disk_of_one):
            name = scenario.__name__
            if args.only not in name:
                continue
            if time.time() - began + 20 > args.seconds:
                skipped.append(name)
                continue
            print(f"----  {name}: {scenario.__doc__.strip()}", flush=True)
            try:
                scenario(args, root)
            except Exception:
                check(f"{name} runs to its end", False, traceback.format_exc())
    finally:
        if cluster:
            cluster.stop()
            if failed:
                print(cluster.logs())
    for name in skipped:
        print(f"skipped: {name}")
    if failed or args.out:
        print(f"evidence in {root}")
    else:
        shutil.rmtree(root, ignore_errors=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


def serving(cluster, name):
    try:
        return cluster.http("/readyz", name)[0] == 200
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main())
