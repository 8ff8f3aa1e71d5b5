#!/usr/bin/env python3
"""Two regions, one of which changes all of its nodes while both write: who is added takes part in what goes
between the regions, and the other region finds the new nodes although its configuration names the old ones,
also after it was killed. Usage: replaced.py POLDER [ETCDCTL]"""
import os, signal, subprocess, sys, threading, time
import script
from cluster import Cluster, eventually, free_base_port, run
from script import check, failures

arguments = script.arguments(0)


class Writer(threading.Thread):
    """Writes new keys of its own at whoever of `urls()` takes them."""

    def __init__(self, prefix, urls):
        super().__init__(daemon=True)
        self.prefix, self.urls, self.stopped = prefix, urls, False
        self.acknowledged, self.failed = [], []

    def run(self):
        number = 0
        while not self.stopped:
            number += 1
            key = f"{self.prefix}{number:05}"
            answer = run([arguments.etcdctl, "--endpoints=" + ",".join(self.urls()), "--command-timeout=20s",
                          "put", key, "v"])
            if answer.ok:
                self.acknowledged.append(key)
            else:
                self.failed.append((key, answer.err[-200:]))
            time.sleep(0.02)


class Added:
    """A node that none of the configurations that exist names."""

    def __init__(self, number, base):
        self.number, self.name = number, f"r1-n{number}"
        self.client, self.peer = f"127.0.0.1:{base}", f"127.0.0.1:{base + 1}"
        self.url, self.process = "http://" + self.client, None

    def start(self, c, others):
        """`others`: of its region, (number, peer address). The other region as its founders were."""
        directory = f"{c.dir}/{self.name}"
        os.makedirs(directory)
        with open(c.dir + "/r1-n1/node.yaml") as f:
            lines = f.read().split("\n")
        text, skipping = [], False
        for line in lines:
            if line.startswith("nodes:"):
                text.append("nodes:")
                for number, peer in sorted([*others, (self.number, self.peer)]):
                    text += [f"  - id: {number}", f'    name: "r1-n{number}"', f'    peer: "{peer}"']
                    if number == self.number:
                        text.append(f'    client: ["{self.url}"]')
                skipping = True
            elif not line.startswith(" "):
                skipping = False
            if skipping:
                continue
            if line.startswith("node:"):
                line = f'node: {{id: {self.number}, name: "{self.name}"}}'
            elif line.startswith("dataDir:"):
                line = f'dataDir: "{directory}/data"'
            elif line.startswith("  client: "):
                line = f'  client: "{self.client}"'
            elif line.startswith("  peer: "):
                line = f'  peer: "{self.peer}"'
            text.append(line)
        with open(directory + "/node.yaml", "w") as f:
            f.write("\n".join(text))
        self.process = subprocess.Popen(
            [c.polder, "serve", "-c", directory + "/node.yaml"], stdout=open(directory + "/log", "ab"),
            stderr=subprocess.STDOUT)

    def ctl(self, *words):
        return run([arguments.etcdctl, "--endpoints=" + self.url, "--command-timeout=20s", *words])

    def end(self, how=signal.SIGTERM):
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(40)


def removed(node, member):
    """Also if an earlier try was, and its answer came too late."""
    answer = node.ctl("member", "remove", member)
    return answer.ok or "member not found" in answer.err


def arrives(c, key, where):
    return eventually(lambda: c.get(key, **where) == "v" if isinstance(where, dict)
                      else where.ctl("get", key, "--print-value-only").out.strip() == "v", 15)


c = Cluster(arguments.polder, arguments.etcdctl, regions=2, nodes=3, tls=False, flags=["--partitions", "2"])
added = []
try:
    base = free_base_port(12) + 90
    ours = {n: c.nodes[f"r1-n{n}"]["client"] for n in (1, 2, 3)}
    peers = {n: f"127.0.0.1:{int(ours[n].rsplit(':', 1)[1]) + 1}" for n in ours}
    check("put in each region", c.etcdctl("put", "one", "v").ok and c.etcdctl("put", "two", "v", region="r2").ok)
    check("each arrives in the other",
          arrives(c, "one", {"region": "r2"}) and arrives(c, "two", {"region": "r1"}))
    writers = [Writer("a/", lambda: list(ours.values())), Writer("b/", lambda: c.urls("r2"))]
    writers += [Writer(f"more/{n}/", lambda: list(ours.values())) for n in range(3)]
    for writer in writers:
        writer.start()
    for number in (4, 5, 6):
        node = Added(number, base + 10 * (number - 4))
        answer = run([arguments.etcdctl, "--endpoints=" + ",".join(ours.values()), "member", "add", node.name,
                      "--peer-urls=http://" + node.peer])
        check(f"{node.name} is added", answer.ok, answer)
        node.start(c, peers.items())
        added.append(node)
        check("it serves", eventually(lambda: node.ctl("get", "one").ok, 20),
              open(f"{c.dir}/{node.name}/log").read()[-600:])
        ours[number], peers[number] = node.url, node.peer
        old = number - 3
        members = run([arguments.etcdctl, "--endpoints=" + node.url, "member", "list"]).out
        of_old = next((line.split(",")[0] for line in members.split("\n") if f" r1-n{old}," in line), "")
        del ours[old], peers[old]
        gone = eventually(lambda: removed(node, of_old), 40)
        check(f"r1-n{old} is removed", gone, members)
        check("a write arrives in the other region",
              node.ctl("put", f"from/{number}", "v").ok and arrives(c, f"from/{number}", {"region": "r2"}))
        check("and one from there here",
              c.etcdctl("put", f"back/{number}", "v", region="r2").ok and arrives(c, f"back/{number}", node))
    for writer in writers:
        writer.stopped = True
    for writer in writers:
        writer.join(60)
    check("both have written all the time", all(len(w.acknowledged) > 20 for w in writers),
          [len(w.acknowledged) for w in writers])
    check("without an error", not any(w.failed for w in writers), [w.failed[:3] for w in writers])

    # Of those that the other region's configuration names nobody is there any more.
    for name in ("r2-n1", "r2-n2", "r2-n3"):
        c.dev_node("kill", name)
    for name in ("r2-n1", "r2-n2", "r2-n3"):
        c.dev_node("start", name)
    check("killed and started, the other region hears ours",
          added[0].ctl("put", "after", "v").ok and arrives(c, "after", {"region": "r2"}))
    check("and ours the other", eventually(lambda: c.etcdctl("put", "again", "v", region="r2").ok, 10)
          and arrives(c, "again", added[1]))
    added[0].end(signal.SIGKILL)
    check("one of ours killed, writes go on between the regions",
          eventually(lambda: added[1].ctl("put", "last", "v").ok, 10) and arrives(c, "last", {"region": "r2"}))
    for writer, look in ((writers[0], lambda: c.etcdctl("get", "a/", "--prefix", "--keys-only", region="r2")),
                         (writers[1], lambda: added[2].ctl("get", "b/", "--prefix", "--keys-only"))):
        missing = eventually(
            lambda: None if (m := set(writer.acknowledged) - set(look().out.split())) else "none", 10)
        check(f"all of {writer.prefix} that was acknowledged is in the other region", missing == "none",
              sorted(set(writer.acknowledged) - set(look().out.split()))[:5])
    listed = run([c.polder, "status", "--endpoints", added[1].url])
    check("status shows the link", "r2" in listed.out and "connected" in listed.out, listed)
finally:
    if failures:
        print(c.logs())
        for node in added:
            print(f"--- {node.name}\n" + open(f"{c.dir}/{node.name}/log").read()[-1500:])
    for node in added:
        node.end()
    c.remove()
print("FAILED: " + ", ".join(failures) if failures else "replaced: all good")
sys.exit(1 if failures else 0)
