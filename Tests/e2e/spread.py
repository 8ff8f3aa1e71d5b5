#!/usr/bin/env python3
"""A region whose rows are spread over its nodes, with real processes and real etcdctl: every node reads, lists,
counts, watches and hashes everything, though it holds a part; under writers, with nodes killed, and back again.
Usage: spread.py POLDER [ETCDCTL]"""
import base64, json, os, subprocess, sys, threading, time
import urllib.request
import script
from cluster import Cluster, eventually, run
from counters import Writer, hashes, kill, partitions, put_away
from damage import damage_log, damage_tables
from script import check, failures
from snapshots import Place, ctl

arguments = script.arguments(0)
KEYS = 600


def order(c, *words):
    return run([c.polder, "partition", *words, "--dev", c.dir], timeout=40)


def post(c, at, path, body):
    request = urllib.request.Request(c.nodes[at]["client"] + path, json.dumps(body).encode())
    return json.load(urllib.request.urlopen(request, timeout=20))


def b64(text):
    return base64.b64encode(text.encode()).decode()


def everything(c, at, **more):
    return post(c, at, "/v3/kv/range", {"key": b64("k/"), "range_end": b64("k0"), **more})


def hashes_at(c, revision):
    return {post(c, name, "/v3/maintenance/hashkv", {"revision": revision})["hash"] for name in sorted(c.nodes)}


def holders(c):
    return {p["id"]: p["replicas"] for p in partitions(c)}


def logged(c, name):
    with open(f"{c.dir}/{name}/log") as f:
        return f.read()


class Watch(threading.Thread):
    """All that happens under a prefix, as one node tells it."""

    def __init__(self, c, at, prefix, start):
        super().__init__(daemon=True)
        self.events, self.at = [], at
        body = {"create_request": {"key": b64(prefix), "range_end": b64(prefix[:-1] + chr(ord(prefix[-1]) + 1)),
                                   "start_revision": start, "prev_kv": True}}
        request = urllib.request.Request(c.nodes[at]["client"] + "/v3/watch", json.dumps(body).encode())
        self.stream = urllib.request.urlopen(request, timeout=60)

    def run(self):
        try:
            for line in self.stream:
                for event in json.loads(line)["result"].get("events", []):
                    kv, before = event["kv"], event.get("prev_kv", {})
                    self.events.append((int(kv["mod_revision"]), event.get("type", "PUT"), kv["key"],
                                        kv.get("value"), before.get("mod_revision")))
        except Exception:
            pass


done = False
c = Cluster(arguments.polder, arguments.etcdctl, regions=1, nodes=6, tls=False, flags=["--partitions", "8"])
try:
    names = sorted(c.nodes)
    for i in range(KEYS):
        if i % 100 == 0:
            post(c, names[0], "/v3/kv/txn", {"success": [
                {"request_put": {"key": b64(f"k/{j:05}"), "value": b64("v" * 200 + str(j))}}
                for j in range(i, min(i + 100, KEYS))]})
    whole = everything(c, names[0])
    check("all keys are there", len(whole["kvs"]) == KEYS, len(whole["kvs"]))
    start = int(whole["header"]["revision"]) + 1
    watches = [Watch(c, name, "w", start) for name in names]
    for watch in watches:
        watch.start()
    writers = [Writer(i, c.urls()) for i in range(3)]
    for writer in writers:
        writer.start()
    time.sleep(0.5)

    on = eventually(lambda: (lambda a: a if a.ok else None)(order(c, "spread", "on")), 20)
    check("the region is spread", on, c.http("/polder/status", at=names[0])[1])
    check("each partition lies with three", eventually(
        lambda: all(len(set(r)) == 3 for r in holders(c).values()) and len(holders(c)) == 8, 20), holders(c))
    check("by teams, so that few sets of voters are there", len(set(map(lambda r: tuple(sorted(r)), holders(c).values()))) == 2,
          holders(c))
    for name in names:
        got = everything(c, name)
        check(f"{name} lists everything", got["kvs"] == whole["kvs"] and got["count"] == str(KEYS),
              (len(got["kvs"]), got.get("count")))
        page = everything(c, name, limit=7)
        check(f"{name} counts beside a limit", len(page["kvs"]) == 7 and page["more"] and page["count"] == str(KEYS), page.get("count"))
        count = everything(c, name, count_only=True)
        check(f"{name} counts", count["count"] == str(KEYS), count)
        down = everything(c, name, sort_order="DESCEND", sort_target="MOD", limit=5, keys_only=True)
        check(f"{name} sorts", len(down["kvs"]) == 5 and down["count"] == str(KEYS) and not any("value" in kv for kv in down["kvs"]), down)
        serial = everything(c, name, serializable=True)
        check(f"{name} reads what it knows", len(serial["kvs"]) == KEYS, len(serial["kvs"]))
        past = everything(c, name, revision=start - 2)
        check(f"{name} reads the past", len(past["kvs"]) == KEYS - 100, len(past["kvs"]))
        both = post(c, name, "/v3/kv/txn", {"success": [{"request_range": {"key": b64(f"k/{j:05}")}} for j in range(0, 90, 9)]})
        check(f"{name} reads many keys at once", all(r["response_range"]["kvs"] for r in both["responses"]), both)
        change = post(c, name, "/v3/kv/txn", {
            "compare": [{"key": b64("k/00001"), "target": "VERSION", "result": "GREATER", "version": "0"}],
            "success": [{"request_put": {"key": b64(f"both/{name}/{j}"), "value": b64("1")}} for j in range(12)]
            + [{"request_range": {"key": b64("k/00002")}}]})
        check(f"{name} writes over many partitions", change.get("succeeded") and len(change["responses"]) == 13, change)
    for name in names:
        asked = [line for line in c.http("/metrics", at=name)[1].splitlines() if line.startswith("polder_reads_elsewhere_total")]
        check(f"{name} had to ask for it", asked and float(asked[0].split()[1]) > 0, asked)
    now = int(everything(c, names[0], count_only=True)["header"]["revision"])
    check("hashes of one revision are equal", eventually(lambda: len(hashes_at(c, now)) == 1, 10), hashes_at(c, now))
    lease = c.etcdctl("lease", "grant", "600", at=names[1])
    number = lease.out.split()[1]
    for j in range(10):
        put = c.etcdctl("put", f"leased/{j}", "x", f"--lease={number}", at=names[j % len(names)])
        if not put.ok:
            check(f"{names[j % len(names)]} attaches a key to a lease", False, put)
    for name in names:
        shown = c.etcdctl("lease", "timetolive", number, "--keys", at=name)
        check(f"{name} knows the lease's keys", shown.out.count("leased/") == 10, shown)
        listed = c.etcdctl("lease", "list", at=name)
        check(f"{name} lists the lease", number in listed.out, listed)

    # A snapshot is put together from all nodes, while writers go on.
    place = Place(arguments, 2)
    try:
        path = f"{place.dir}/spread.db"
        saved = c.etcdctl("snapshot", "save", path, at=names[3])
        check("a snapshot of all of it is saved at one node", saved.ok, saved)
        status = run([c.polder, "snapshot", "status", path, "-o", "json"])
        check("and its status is told", status.ok and status.json["totalKey"] >= KEYS + 10, status)
        done = run([c.polder, "snapshot", "import", path, "--keep-revision", f"--data-dir={place.dir}/copy", "--name=copy",
                    f"--initial-cluster=copy=http://127.0.0.1:{place.port(0) + 1}",
                    f"--initial-advertise-peer-urls=http://127.0.0.1:{place.port(0) + 1}"])
        check("it is imported", done.ok, done)
        check("and started from", place.start("copy", 0, [c.polder, "etcd"]), place.log("copy"))
        copy = ctl(arguments.etcdctl, place.url(0))
        there = copy("get", "", "--prefix", "-w", "json").json
        here = c.etcdctl("get", "", "--prefix", f"--rev={there['header']['revision']}", "-w", "json", at=names[5]).json
        check("the copy is what the region was", there["kvs"] == here["kvs"] and len(there["kvs"]) >= KEYS + 10,
              (len(there["kvs"]), len(here["kvs"])))
        lent = copy("lease", "timetolive", number, "--keys", "-w", "json").json
        check("with its leases", lent["granted-ttl"] == 600 and len(lent["keys"]) == 10, lent)
    finally:
        place.remove()
    check("revoked", c.etcdctl("lease", "revoke", number, at=names[4]).ok)
    for name in names:
        gone = c.etcdctl("get", "leased/", "--prefix", "--count-only", "--write-out=json", at=name)
        check(f"{name} sees its keys gone", '"count"' not in gone.out, gone)

    # One of each team is lost: nobody misses it.
    teams = sorted(set(map(lambda r: tuple(sorted(r)), holders(c).values())))
    lost = [teams[0][-1], teams[1][-1]]
    check("the second writes out its store", c.etcdctl("defrag", at=lost[1]).ok and eventually(
        lambda: "etcd_disk_defrag_inflight 0\n" in c.http("/metrics", at=lost[1])[1], 20))
    kill(c, *lost)
    left = [n for n in names if n not in lost]
    for name in left:
        got = eventually(lambda: (lambda g: g if len(g.get("kvs", [])) == KEYS else None)(everything(c, name)), 20)
        check(f"with two nodes lost {name} lists everything", got and got["kvs"] == whole["kvs"])
    # What they have is damaged meanwhile, a log and a store: nobody has just what they had, and they come in anew.
    check("a log is damaged", damage_log(c.nodes[lost[0]]["dataDir"]))
    count = damage_tables(c.nodes[lost[1]]["dataDir"] + "/store")
    check("and tables of a store", count > 0, os.listdir(c.nodes[lost[1]]["dataDir"] + "/store"))
    for name in lost:
        c.dev_node("start", name)
    for name in lost:
        got = eventually(lambda: (lambda g: g if len(g.get("kvs", [])) == KEYS else None)(everything(c, name)), 30)
        check(f"{name} is back and lists everything", got and got["kvs"] == whole["kvs"])

        def has_noticed():
            # What is not served yet is read elsewhere.
            try:
                post(c, name, "/v3/maintenance/hashkv", {})
            except OSError:
                pass
            return "set aside: it comes in anew" in logged(c, name)
        check(f"{name} has set aside what it had", eventually(has_noticed, 20), logged(c, name)[-2000:])

    for name in lost:
        got = eventually(lambda: (lambda g: g if len(g.get("kvs", [])) == KEYS else None)(everything(c, name)), 30)
        check(f"{name} has everything again", got and got["kvs"] == whole["kvs"])
    off = order(c, "spread", "off")
    check("no longer spread", off.ok, off)
    check("every node holds everything", eventually(
        lambda: all(set(r) == set(names) for r in holders(c).values()), 30), holders(c))
    time.sleep(1)
    for writer in writers:
        writer.stopped = True
    for writer in writers:
        writer.join(30)
    check("nothing of the writers' failed but by the killed nodes",
          all(len(w.failed) < 60 for w in writers), [(len(w.failed), w.failed[:3], w.failed[-3:]) for w in writers])
    wrong = [w.wrong[:3] for w in writers if w.wrong]
    check("every read saw the write before it", not wrong, wrong)
    for writer in writers:
        gone = [(k, v, c.get(k, at=names[2])) for k, v in writer.values.items() if int(c.get(k, at=names[2]) or 0) < v]
        check(f"writer {writer.number}: nothing acknowledged is lost", not gone, gone)
    time.sleep(1)
    told = [w for w in watches if w.at not in lost]
    books = {tuple(w.events) for w in told}
    shortest = min(len(w.events) for w in told)
    odd = [(w.at, e, f) for w in told for e, f in zip(w.events, told[0].events) if e != f][:4]
    check("every node told its watchers the same", not odd and shortest > 100, ({w.at: len(w.events) for w in told}, odd))
    check("each change once, in order", all(
        [e[0] for e in w.events] == sorted(set(e[0] for e in w.events)) for w in told))
    missing = [(w.at, e) for w in told for e in w.events if e[4] is None and e[3] != b64("1")]
    check("with what it replaced", not missing, (len(missing), missing[:5]))
    check("the replicas are equal", eventually(lambda: len(hashes(c)) == 1, 10), hashes(c))
    print(f"      {sum(w.written for w in writers)} writes, {shortest} events at each of {len(told)} nodes, "
          f"the longest write took {max(w.longest for w in writers) * 1e3:.0f} ms")
    done = True
finally:
    put_away(c, done)
print(f"{len(failures)} failed: {failures}" if failures else "all passed")
sys.exit(1 if failures else 0)
