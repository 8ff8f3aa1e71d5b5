#!/usr/bin/env python3
"""Partitions that are split, with real processes and real etcdctl: while clients write, read, watch and keep
leases; while nodes are killed; with wrong input. Usage: splits.py POLDER [ETCDCTL] [--seed N]"""
import base64, json, random, subprocess, sys, threading, time
import script
from cluster import Cluster, eventually, run
from counters import Writer, hashes, kill, partitions, put_away
from script import check, failures

arguments = script.arguments(0, lambda parser: parser.add_argument("--seed", type=int, default=1))
luck = random.Random(arguments.seed)


def split(c, *words):
    return run([c.polder, "partition", "split", *words, "--dev", c.dir], timeout=40)


done = False
c = Cluster(arguments.polder, arguments.etcdctl, regions=1, nodes=3, tls=False, flags=["--partitions", "2"])
try:
    c.etcdctl("put", "first", "1")
    level = lambda: json.loads(c.http("/polder/status", at="r1-n1")[1])["featureLevel"]
    check("the region is at its builds' level", eventually(lambda: level() >= 2, 5), level())
    lease = c.etcdctl("lease", "grant", "600").out.split()[1]
    for i in range(40):
        c.etcdctl("put", f"leased/{i}", "x", "--lease=" + lease)
    watch = subprocess.Popen(
        c.etcdctl_words("watch", "--prefix", "w0/", "-w", "json"), stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True)
    events = []

    def listen():
        for line in watch.stdout:
            for event in json.loads(line).get("Events") or []:
                kv = event["kv"]
                events.append((kv["mod_revision"], base64.b64decode(kv["key"]).decode(),
                               int(base64.b64decode(kv["value"]))))
    threading.Thread(target=listen, daemon=True).start()
    time.sleep(0.5)
    writers = [Writer(i, c.urls()) for i in range(4)]
    for writer in writers:
        writer.start()
    time.sleep(1)

    # Under load, nothing else.
    first = split(c, "1")
    check("a partition is split", first.ok and "partition 3 has the rest" in first.out, first)
    second = split(c, "2", "--at", "c000000000000000")
    check("another at a hash", second.ok and "c000000000000000" in second.out, second)
    third = split(c, "3")
    check("and a child", third.ok, third)
    found = partitions(c)
    check("all are listed", [p["id"] for p in found] == [1, 2, 3, 4, 5], found)
    ranges = sorted(p["range"].split("-") for p in found)
    check("without gaps", ranges[0][0] == "0" * 16 and ranges[-1][1] == "f" * 16 and all(
        int(a[1], 16) + 1 == int(b[0], 16) for a, b in zip(ranges, ranges[1:])), ranges)
    table = run([c.polder, "partition", "list", "--dev", c.dir])
    check("in a table, too", table.ok and "PARTITION" in table.out and table.out.count("\n") == 7 and "directory's voters" in table.out, table)
    check("nothing of the writers' failed", not any(w.failed for w in writers), [w.failed[:3] for w in writers])
    for words, expected in [
        (["9"], "no such partition"), (["1", "--at", "ffffffffffffffff"], "must lie in the partition"),
        (["1", "--at", "0"], "must lie in the partition"), (["1", "--at", "xyz"], "hexadecimal"),
        (["0"], "expected a number from 1"),
    ]:
        wrong = split(c, *words)
        check(f"split {' '.join(words)} is refused", not wrong.ok and expected in wrong.out + wrong.err, wrong)
    status, body = c.http("/metrics", at=sorted(c.nodes)[0])
    check("metrics tell", "polder_partitions 5" in body and "polder_partition_map_version 4" in body,
          [l for l in body.split("\n") if "polder_partition" in l][:6])
    whole = c.etcdctl("get", "leased/", "--prefix", "--keys-only")
    check("a range over all partitions", whole.ok and whole.out.count("leased/") == 40, whole)
    ttl = c.etcdctl("lease", "timetolive", lease, "--keys", "-w", "json")
    check("the lease knows its keys", ttl.ok and len(ttl.json["keys"]) == 40, ttl)

    # Nodes are killed in the middle.
    for i, name in enumerate(sorted(c.nodes)):
        before = len(partitions(c))
        target = str(luck.choice(partitions(c))["id"])
        asked = {}
        asking = threading.Thread(target=lambda: asked.update(answer=split(c, target)))
        asking.start()
        time.sleep(luck.uniform(0, 0.25))
        kill(c, name)
        asking.join()
        c.dev_node("start", name)
        # Its outcome may be unknown, as of any other request; then it comes about, or never began.
        settled = eventually(lambda: c.etcdctl("get", "first", at=name).ok and len(partitions(c)) >= before, 10)
        check(f"a split while {name} is killed: the region serves", settled, asked)
        if asked["answer"].ok:
            check("and it has come about", eventually(lambda: len(partitions(c)) == before + 1, 5), partitions(c))
        time.sleep(0.5)

    # All at once, and back from the disks.
    before = len(partitions(c))
    kill(c, *c.nodes)
    for name in sorted(c.nodes):
        c.dev_node("start", name)
    check("all killed: the region comes back", eventually(lambda: c.get("first") == "1", 10), c.logs())
    check("with its partitions", eventually(lambda: len(partitions(c)) == before, 5), partitions(c))
    last = eventually(lambda: split(c, "1").ok, 5)
    check("and splits on", last)
    time.sleep(1)
    for writer in writers:
        writer.stopped = True
    for writer in writers:
        writer.join(30)
    print(f"      {sum(w.written for w in writers)} writes, {sum(len(w.failed) for w in writers)} calls failed "
          f"while nodes were killed, longest {max(w.longest for w in writers):.2f} s")
    wrong = [w.wrong[:3] for w in writers if w.wrong]
    check("every read saw the write before it", not wrong, wrong)
    for writer in writers:
        lost = [(k, v, c.get(k)) for k, v in writer.values.items() if int(c.get(k) or 0) < v]
        check(f"writer {writer.number}: nothing acknowledged is lost", not lost, lost)
    revoked = c.etcdctl("lease", "revoke", lease)
    check("the lease is revoked", revoked.ok, revoked)
    rest = c.etcdctl("get", "leased/", "--prefix", "--keys-only")
    check("and takes its keys, wherever they are", rest.ok and "leased" not in rest.out, rest)
    check("the replicas are equal", eventually(lambda: len(hashes(c)) == 1, 5), hashes(c))
    watch.terminate()
    ascending = all(a[0] < b[0] for a, b in zip(events, events[1:]))
    check("watchers saw a rising history", ascending and len(events) > 0, events[:5])
    counts = {}
    gaps = []
    for _, key, value in events:
        if key in counts and value not in (counts[key], counts[key] + 1):
            gaps.append((key, counts[key], value))
        counts[key] = value
    check("without gaps", not gaps, gaps[:5])
    # A clean stop, and everything again.
    c.stop()
    c.start()
    check("after a stop and a start all is there", c.get("first") == "1" and len(partitions(c)) == before + 1,
          partitions(c))
    done = True
finally:
    put_away(c, done)
print(f"{len(failures)} failed: {failures}" if failures else "all passed")
sys.exit(1 if failures else 0)
