#!/usr/bin/env python3
"""Voters that are moved, with real processes and real etcdctl: fewer voters than nodes, partitions that go from
node to node while clients write, voters that are killed, drained and removed; leaders that go where there is
CPU for them. Usage: moves.py POLDER [ETCDCTL]"""
import json, sys, time
import script
from cluster import Cluster, eventually, run
from counters import Writer, hashes, kill, partitions, put_away
from script import check, failures

arguments = script.arguments(0)


def order(c, *words):
    return run([c.polder, "partition", *words, "--dev", c.dir], timeout=40)


def voters(c):
    return {p["id"]: p["voters"] for p in partitions(c)}


def status(c):
    for name in c.nodes:
        try:
            return json.loads(c.http("/polder/status", at=name)[1])
        except OSError:
            pass
    return {}


done = False
c = Cluster(arguments.polder, arguments.etcdctl, regions=1, nodes=5, tls=False, flags=["--partitions", "4"])
try:
    names = sorted(c.nodes)
    n1, n2, n3, n4, n5 = names
    c.etcdctl("put", "first", "1")
    check("five of five vote, as nobody has said otherwise",
          eventually(lambda: all(set(v) == set(names) for v in voters(c).values()) and len(voters(c)) == 4), voters(c))
    check("the region is at its builds' level", eventually(lambda: status(c)["featureLevel"] >= 3, 5))
    writers = [Writer(i, c.urls()) for i in range(4)]
    for writer in writers:
        writer.start()
    time.sleep(0.5)

    three = eventually(lambda: (lambda a: a if a.ok else None)(order(c, "replicas", "3")), 20)
    check("three shall vote", three, status(c))
    check("and do", eventually(lambda: set(map(tuple, voters(c).values())) == {(n1, n2, n3)}, 10), voters(c))
    check("in the directory, too", status(c)["sequencer"]["voters"] == [n1, n2, n3], status(c)["sequencer"])
    moved = order(c, "move", "2", "--to", f"{n5},{n4},{n3}")
    check("a partition moves", moved.ok, moved)
    check("to the nodes named", eventually(lambda: voters(c)[2] == [n5, n4, n3], 10), voters(c))
    leader = lambda p: next((x["leader"] for x in partitions(c) if x["id"] == p), None)
    check("the first of them leads", eventually(lambda: leader(2) == n5, 10), partitions(c))
    check("the others stay where they were", all(voters(c)[p] == [n1, n2, n3] for p in (1, 3, 4)), voters(c))
    table = order(c, "list")
    check("the list shows it", table.ok and f"{n5} {n4} {n3}" in table.out and "VOTERS" in table.out, table)
    sequencer = order(c, "move", "0", "--to", n4)
    check("the directory moves", sequencer.ok, sequencer)
    check("and the sequencer with it", eventually(lambda: status(c)["sequencer"]["node"] == n4, 10), status(c)["sequencer"])
    back = order(c, "move", "0", "--by-rule")
    check("and lies by the rule again",
          back.ok and eventually(lambda: status(c)["sequencer"]["voters"] == [n1, n2, n3], 10), status(c)["sequencer"])
    for words, expected in [
        (["move", "9", "--to", n1], "no such partition"), (["move", "1", "--to", "nobody"], "there is no member"),
        (["move", "1"], "either --to"), (["move", "1", "--to", ",".join(names[:4])], "replicas"),
        (["replicas", "0"], "expected 1 to 9"), (["replicas", "10"], "expected 1 to 9"),
    ]:
        wrong = order(c, *words)
        check(f"{' '.join(words[:2])} ... is refused", not wrong.ok and expected in wrong.out + wrong.err, wrong)
    for target in (n5, n2):
        ids = {m["name"]: m["id"] for m in status(c)["regions"][0]["nodes"]}
        at = status(c)["sequencer"]["node"]
        move = c.etcdctl("move-leader", ids[target], at=at)
        check(f"etcdctl moves the leader to {target}", move.ok and eventually(
            lambda: status(c)["sequencer"]["node"] == target, 5), (move, status(c)["sequencer"]))
        time.sleep(1)
        check("where it stays", status(c)["sequencer"]["node"] == target, status(c)["sequencer"])
    check("nothing of the writers' failed", not any(w.failed for w in writers), [w.failed[:3] for w in writers])
    longest = max(w.longest for w in writers)
    print(f"      {sum(w.written for w in writers)} writes, the longest took {longest * 1e3:.0f} ms")

    # Two of five are lost: each group of three has a majority only if they are not both in it.
    order(c, "move", "0", "--by-rule")
    order(c, "move", "2", "--to", f"{n5},{n2},{n1}")
    check("it moves back in part", eventually(lambda: voters(c)[2] == [n5, n2, n1], 10), voters(c))
    kill(c, n5, n4)
    check("with two that share no majority gone all is served",
          eventually(lambda: c.etcdctl("put", "second", "2", at=n1).ok, 10), c.logs())
    for key in [f"spread/{i}" for i in range(12)]:
        put = c.etcdctl("put", key, "x", at=n2)
        if not put.ok:
            check("puts everywhere", False, put)
            break
    c.dev_node("start", n4)
    c.dev_node("start", n5)
    check("its leader is back where it is wanted", eventually(lambda: leader(2) == n5, 15), partitions(c))
    drained = run([c.polder, "node", "drain", n1, "--dev", c.dir], timeout=60)
    check("a drained node", drained.ok, drained)
    check("votes nowhere, for others can", eventually(
        lambda: not any(n1 in v for v in voters(c).values()), 10), voters(c))
    check("the directory neither", n1 not in status(c)["sequencer"]["voters"], status(c)["sequencer"])
    removed = run([c.polder, "node", "remove", n1, "--yes", "--dev", c.dir], timeout=60)
    check("and is removed", removed.ok, removed)
    check("without a trace", eventually(
        lambda: all(len(v) == 3 and n1 not in v for v in voters(c).values()), 10), voters(c))
    time.sleep(0.5)
    for writer in writers:
        writer.stopped = True
    for writer in writers:
        writer.join(30)
    wrong = [w.wrong[:3] for w in writers if w.wrong]
    check("every read saw the write before it", not wrong, wrong)
    for writer in writers:
        lost = [(k, v, c.get(k, at=n2)) for k, v in writer.values.items() if int(c.get(k, at=n2) or 0) < v]
        check(f"writer {writer.number}: nothing acknowledged is lost", not lost, lost)
    c.nodes.pop(n1)
    check("the replicas are equal, voters and learners", eventually(lambda: len(hashes(c)) == 1, 5), hashes(c))
    done = True
finally:
    put_away(c, done)


def led(c):
    """How many partitions each leads."""
    count = {}
    for p in partitions(c):
        count[p["leader"]] = count.get(p["leader"], 0) + 1
    return count


def wait_for(c, what, is_there, seconds):
    check(what, eventually(lambda: is_there(led(c)), seconds, 0.5), led(c))


# Leaders follow the CPU. The bounds are such that a few clients keep a node busy.
done = False
c = Cluster(arguments.polder, arguments.etcdctl, regions=1, nodes=3, tls=False, flags=["--partitions", "6"])
try:
    names = sorted(c.nodes)
    for name in names:
        c.dev_node("kill", name)
        with open(f"{c.dir}/{name}/node.yaml", "a") as f:
            f.write("leaders: {balance: true, busyPercent: 10, quietPercent: 9}\n")
        with open(f"{c.dir}/{name}/node.yaml") as f:
            text = f.read().replace("level: warning", "level: notice")
        with open(f"{c.dir}/{name}/node.yaml", "w") as f:
            f.write(text)
        c.dev_node("start", name)
    order(c, "move", "6", "--to", ",".join([names[2], names[0], names[1]]))
    wait_for(c, "the sequencer's node leads all but one that is wished for elsewhere",
             lambda count: sorted(count.values()) == [1, 5], 20)
    home = status(c)["sequencer"]["node"]
    # All at one node, or all are equally busy.
    writers = [Writer(i, [c.nodes[home]["client"]]) for i in range(8)]
    for writer in writers:
        writer.start()
    wait_for(c, "busy, it gives partitions away", lambda count: count.get(home, 0) <= 4 and len(count) >= 2, 20)
    spread = led(c)
    for writer in writers:
        writer.stopped = True
    for writer in writers:
        writer.join(30)
    wait_for(c, "when there is nothing to do they come back, but for the wish",
             lambda count: count.get(home, 0) >= 5, 30)
    check("no client has failed", not any(w.failed for w in writers), [w.failed[:2] for w in writers])
    wrong = [w.wrong[:3] for w in writers if w.wrong]
    check("every read saw the write before it", not wrong, wrong)
    print(f"      {sum(w.written for w in writers)} writes, led while busy: {spread}, longest "
          f"{max(w.longest for w in writers) * 1000:.0f} ms", flush=True)
    done = True
finally:
    put_away(c, done)
print(f"{len(failures)} failed: {failures}" if failures else "all passed")
sys.exit(1 if failures else 0)
