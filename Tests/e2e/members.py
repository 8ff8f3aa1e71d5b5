#!/usr/bin/env python3
"""Membership of a region, with real processes started by etcd's flags and real etcdctl: a member is added
as a learner and promoted, one is added as a voter, one is removed, URLs are updated; one loses its disk
and is started again while clients write. Usage: members.py POLDER [ETCDCTL] [--port 23200]"""
import json, os, shutil, signal, subprocess, sys, tempfile, threading, time
import script
from cluster import eventually, run
from script import check, failures

arguments = script.arguments(23200)


class Node:
    def __init__(self, number, directory):
        self.number, self.name = number, f"n{number}"
        self.client = f"http://127.0.0.1:{arguments.port + 2 * number}"
        self.peer = f"http://127.0.0.1:{arguments.port + 2 * number + 1}"
        self.data = f"{directory}/{self.name}"
        self.log = f"{directory}/{self.name}.log"
        self.process = None

    def start(self, cluster, state="new"):
        words = [arguments.polder, "etcd", "--name", self.name, "--data-dir", self.data,
                 "--listen-client-urls", self.client, "--advertise-client-urls", self.client,
                 "--listen-peer-urls", self.peer, "--initial-advertise-peer-urls", self.peer,
                 "--initial-cluster", ",".join(f"{n.name}={n.peer}" for n in cluster),
                 "--initial-cluster-state", state]
        self.process = subprocess.Popen(words, stdout=open(self.log, "ab"), stderr=subprocess.STDOUT)

    def end(self, how=signal.SIGTERM):
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(30)

    def ctl(self, *words, timeout=30):
        return run([arguments.etcdctl, "--endpoints=" + self.client, "--command-timeout=20s", *words],
                   timeout=timeout)

    def serves(self):
        return self.ctl("get", "x", timeout=25).ok

    def members(self):
        answer = self.ctl("member", "list", "-w", "json")
        return json.loads(answer.out)["members"] if answer.ok else []


class Writer(threading.Thread):
    """Writes 1, 2, 3, ... to a key of its own, at any node that answers, and reads back what it wrote."""

    def __init__(self, number, nodes):
        super().__init__(daemon=True)
        self.key, self.nodes, self.stopped, self.value = f"w{number}", nodes, False, 0
        self.wrong, self.failed = [], 0

    def run(self):
        import base64, urllib.request
        encoded = lambda text: base64.b64encode(text.encode()).decode()
        turn = 0
        while not self.stopped:
            turn += 1
            node = self.nodes[turn % len(self.nodes)]
            body = json.dumps({"key": encoded(self.key), "value": encoded(str(self.value + 1))})
            try:
                urllib.request.urlopen(node.client + "/v3/kv/put", body.encode(), timeout=10).read()
                self.value += 1
            except Exception:
                # It may have happened: the next writes the same value again.
                self.failed += 1
                time.sleep(0.05)
                continue
            other = self.nodes[(turn + 1) % len(self.nodes)]
            try:
                body = json.dumps({"key": encoded(self.key)})
                got = json.load(urllib.request.urlopen(
                    other.client + "/v3/kv/range", body.encode(), timeout=10))
                value = int(base64.b64decode(got["kvs"][0]["value"]))
                if value != self.value:
                    self.wrong.append((self.value, value))
            except Exception:
                self.failed += 1


def hashes(nodes):
    """At one revision: clients go on writing."""
    found = set()
    revision = None
    for node in nodes:
        if revision is None:
            revision = json.loads(node.ctl("get", "x", "-w", "json").out or "{}").get("header", {}).get("revision", 0)
        answer = node.ctl("endpoint", "hashkv", f"--rev={revision}", "-w", "json")
        if not answer.ok:
            return {node.name}
        found.add(json.loads(answer.out)[0]["HashKV"]["hash"])
    return found


directory = tempfile.mkdtemp(prefix="polder-members-")
founders = [Node(i, directory) for i in (1, 2, 3)]
everybody = list(founders)
try:
    founders[0].start(founders)
    founders[1].start(founders)
    time.sleep(1.5)
    check("two of three do not found a region", not founders[0].ctl("get", "x", "--command-timeout=1s").ok)
    founders[2].start(founders)
    check("three do", eventually(lambda: all(n.serves() for n in founders), 10))
    listed = eventually(
        lambda: (lambda m: m if all(x.get("name") and x.get("clientURLs") for x in m) and len(m) == 3 else None)(
            founders[0].members()), 10) or []
    check("all are listed with names and URLs", len(listed) == 3, listed)
    ids = {m["name"]: m["ID"] for m in listed}
    check("all list the same", all({m["ID"] for m in n.members()} == set(ids.values()) for n in founders))

    writers = [Writer(i, founders[:2]) for i in range(4)]
    for writer in writers:
        writer.start()

    # A disk is lost.
    time.sleep(1)
    founders[2].end(signal.SIGKILL)
    shutil.rmtree(founders[2].data)
    time.sleep(0.3)
    begun = time.time()
    founders[2].start(founders)
    back = eventually(founders[2].serves, 15)
    check("who lost its disk serves again", back, open(founders[2].log).read()[-800:])
    print(f"      after {time.time() - begun:.1f} s")
    after = eventually(lambda: (lambda m: m if len(m) == 3 else None)(founders[2].members()), 5) or []
    check("under its id and name", {m["name"]: m["ID"] for m in after} == ids, after)
    status = lambda node: json.loads(run(["curl", "-s", node.client + "/polder/status"]).out or "{}")
    def votes_again():
        text = open(founders[2].log).read()
        return text.count('"voters":"[259, 1, 2]"') + text.count("voters: [1, 2, 259]") + text.count(
            "[1, 2, 259]")
    voters = eventually(lambda: votes_again() >= 9, 15)
    check("and votes in every group", voters, votes_again())
    time.sleep(1)
    # It counts: with another one gone, the two are a majority.
    founders[1].end(signal.SIGKILL)
    check("with it and one more the region goes on", eventually(
        lambda: founders[0].ctl("put", "a", "1").ok and founders[2].ctl("put", "a", "2").ok, 10))
    founders[1].start(founders)
    check("the third comes back", eventually(founders[1].serves, 10))

    # A disk is lost while there is no majority of those that have theirs.
    founders[1].end(signal.SIGKILL)
    founders[2].end(signal.SIGKILL)
    shutil.rmtree(founders[2].data)
    before = os.path.getsize(founders[2].log)
    founders[2].start(founders)
    time.sleep(3.5)
    check("an empty disk is no vote: one of three with its disk decides nothing",
          not founders[0].ctl("put", "c", "1", "--command-timeout=1s").ok)
    check("nor does the empty one serve", not founders[2].ctl("get", "x", "--command-timeout=1s").ok)
    told = lambda: open(founders[2].log).read()[before:]
    check("and it says what it waits for",
          eventually(lambda: "not admitted to the region yet" in told(), 10), told()[-500:])
    founders[1].start(founders)
    check("with the second's disk there is a majority, and it takes part", eventually(
        lambda: founders[0].ctl("put", "c", "2").ok and founders[2].serves(), 15), open(founders[2].log).read()[-500:])

    # A learner.
    fourth = Node(4, directory)
    everybody.append(fourth)
    one = founders[0]

    def add(*flags):
        # While leaders change its outcome may be unknown, as in etcd: then it may have happened.
        answer = eventually(lambda: (lambda a: a if a.ok or "already exists" in a.err else None)(
            one.ctl("member", "add", "n4", *flags, "--peer-urls=" + fourth.peer)), 5)
        return bool(answer)

    has_no_learners = "learner" not in one.ctl("member", "add", "--help").out
    if not has_no_learners:
        check("a learner is added", add("--learner"))
        second = one.ctl("member", "add", "n5", "--learner", "--peer-urls=http://127.0.0.1:9")
        check("a second is refused", "too many learner members in cluster" in second.err, second)
    else:
        check("a member is added", add())
    again = one.ctl("member", "add", "n4", "--peer-urls=" + fourth.peer)
    check("its URL cannot be taken twice", "Peer URLs already exists" in again.err, again)
    wrong = one.ctl("member", "remove", "deadbeef")
    check("a stranger cannot be removed", "member not found" in wrong.err, wrong)
    named = {m.get("name", ""): m["ID"] for m in one.members()}
    check("who has not started has no name", "" in named, named)
    fourth_id = "%x" % named.get("", 0)
    if not has_no_learners:
        early = one.ctl("member", "promote", fourth_id)
        check("nor can it be promoted", "in sync with leader" in early.err, early)
    fourth.start(founders + [fourth], state="existing")
    check("it joins", eventually(fourth.serves, 15), open(fourth.log).read()[-800:])
    check("and says its name", eventually(
        lambda: any(m.get("name") == "n4" and m.get("clientURLs") for m in one.members()), 10))
    if not has_no_learners:
        promoted = eventually(lambda: one.ctl("member", "promote", fourth_id).ok, 10)
        check("and is promoted", promoted)
        check("once", "can only promote a learner member" in one.ctl("member", "promote", fourth_id).err)
    check("its books are the others'", eventually(lambda: len(hashes([one, fourth])) == 1 or None, 15))

    # Leaderships move away from a node, and stay away.
    def leads(node):
        found = status(one)
        nodes = found["regions"][0]["nodes"]
        return (sum(p["leader"] == node.name for p in found["partitions"])
                + sum(n["sequencer"] for n in nodes if n["name"] == node.name))

    def polder(*words):
        return run([arguments.polder, "node", *words, "--endpoints", one.client], timeout=40)

    def failed():
        return sum(w.failed for w in writers)

    leader = max((*founders, fourth), key=leads)
    before = failed()
    drained = polder("drain", leader.name)
    check(f"{leader.name}, which leads most, is drained", drained.ok and leads(leader) == 0, drained)
    check("the list says so", any(leader.name in line and "drained" in line
                                  for line in polder("list").out.splitlines()), polder("list"))
    time.sleep(1.5)
    check("and leads nothing later", leads(leader) == 0, leads(leader))
    everyone = [n.name for n in (*founders, fourth)]
    for name in everyone:
        last = polder("drain", name, "--wait", "0")
    check("the last that could lead cannot be drained", not last.ok, last)
    for name in everyone:
        polder("undrain", name)
    check("nobody is drained any more", "drained" not in polder("list").out)
    check("no client has seen an error of it", failed() == before, failed() - before)
    polder("drain", "n3")
    founders[2].end()
    founders[2].start(founders)
    check("who starts again takes part again", eventually(
        lambda: founders[2].serves() and "drained" not in polder("list").out, 15), polder("list"))

    # Changed URLs, a member that leaves.
    updated = one.ctl("member", "update", fourth_id, "--peer-urls=http://127.0.0.1:%d" % (arguments.port + 9))
    check("URLs are updated", updated.ok, updated)
    second_id = "%x" % ids["n2"]
    for writer in writers:
        writer.nodes = [founders[0], founders[2], fourth]
    time.sleep(1)
    one.ctl("move-leader", second_id)
    before = failed()
    removed = one.ctl("member", "remove", second_id)
    check("a member is removed", removed.ok, removed)
    check("and its process ends", eventually(lambda: founders[1].process.poll() is not None, 10))
    check("no client of the others has seen an error of it", failed() == before, failed() - before)
    check("the others list three", len(one.members()) == 3, one.members())
    time.sleep(2)
    founders[2].end(signal.SIGKILL)
    check("two of the three go on", eventually(lambda: fourth.ctl("put", "b", "1").ok, 10))
    founders[2].start(founders)
    check("and the third comes back", eventually(founders[2].serves, 10))

    for writer in writers:
        writer.stopped = True
    for writer in writers:
        writer.join(30)
    total = sum(w.value for w in writers)
    wrong = [w.wrong for w in writers if w.wrong]
    print(f"      {total} writes acknowledged, {sum(w.failed for w in writers)} calls failed")
    check("what was acknowledged was read back", total > 50 and not wrong, wrong)
    for writer in writers:
        got = [n.ctl("get", writer.key, "--print-value-only").out.strip() for n in (one, founders[2], fourth)]
        check(f"the last of {writer.key} is everywhere", all(
            g.isdigit() and int(g) in (writer.value, writer.value + 1) for g in got), (writer.value, got))
    check("all books are equal", eventually(
        lambda: len(hashes([one, founders[2], fourth])) == 1 or None, 15), hashes([one, founders[2], fourth]))
finally:
    for node in everybody:
        node.end(signal.SIGKILL)
    if failures:
        print("kept:", directory)
    else:
        shutil.rmtree(directory, ignore_errors=True)
print("FAILED: " + ", ".join(failures) if failures else "members: all good")
sys.exit(1 if failures else 0)
