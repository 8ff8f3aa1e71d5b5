#!/usr/bin/env python3
"""A region of three nodes that pretend to be of the build before goes over to this one, one node at a time,
under writes; then the old build is refused. Then to a build that pretends to be the next version. With
--old it begins with that binary, an earlier build. Usage: upgrade.py POLDER [ETCDCTL] [--port 23900]"""
import json, os, shutil, signal, subprocess, sys, tempfile, threading, time, urllib.request
import script
from cluster import eventually, run
from script import check, failures

arguments = script.arguments(23900, lambda parser: parser.add_argument("--old"))
OLD, OWN, NEXT = 3, 4, 5


class Node:
    def __init__(self, number, directory):
        self.number, self.directory = number, f"{directory}/n{number}"
        self.url = f"http://127.0.0.1:{arguments.port + 2 * number}"
        self.log = f"{directory}/n{number}.log"
        self.process = None

    def start(self, level):
        port = arguments.port
        nodes = "".join(
            f'  - {{id: {n}, name: n{n}, peer: "127.0.0.1:{port + 2 * n + 1}", '
            f'client: ["http://127.0.0.1:{port + 2 * n}"]}}\n' for n in (1, 2, 3))
        os.makedirs(os.path.dirname(self.directory), exist_ok=True)
        with open(self.directory + ".yaml", "w") as file:
            file.write(
                f"region: {{id: 1, name: r1}}\nnode: {{id: {self.number}, name: n{self.number}}}\ndataDir: {self.directory}\n"
                f'listen: {{client: "127.0.0.1:{port + 2 * self.number}", '
                f'peer: "127.0.0.1:{port + 2 * self.number + 1}"}}\n'
                f"nodes:\n{nodes}faultInjection: true\nfeatureLevel: {level}\n")
        build = arguments.old if arguments.old and level == OLD else arguments.polder
        self.process = subprocess.Popen(
            [build, "serve", "-c", self.directory + ".yaml"],
            stdout=open(self.log, "ab"), stderr=subprocess.STDOUT)

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)

    def ends(self, seconds=60):
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def said(self):
        return open(self.log, errors="replace").read()[-600:]

    def ctl(self, *words):
        return run([arguments.etcdctl, "--endpoints=" + self.url, "--command-timeout=20s", *words])

    def serves(self):
        return self.ctl("get", "x").ok

    def spread(self):
        return run([arguments.polder, "partition", "spread", "on", "--endpoints", self.url], timeout=60)

    def level(self):
        try:
            return json.load(urllib.request.urlopen(self.url + "/polder/status", timeout=5))["featureLevel"]
        except (OSError, ValueError, KeyError):
            return None


class Writer(threading.Thread):
    """Counts up one key, through whichever node answers; what was acknowledged must be there at the end."""

    def __init__(self, nodes):
        super().__init__(daemon=True)
        self.nodes, self.stopped, self.value = nodes, False, 0

    def run(self):
        turn = 0
        while not self.stopped:
            turn += 1
            if self.nodes[turn % 3].ctl("put", "count", str(self.value + 1)).ok:
                self.value += 1


directory = tempfile.mkdtemp(prefix="polder-upgrade-")
nodes = [Node(i, directory) for i in (1, 2, 3)]
writer = Writer(nodes)
try:
    for node in nodes:
        node.start(OLD)
    if not check("three nodes serve", eventually(lambda: all(n.serves() for n in nodes)), nodes[0].said()):
        raise SystemExit(1)
    check("at the build's own level", eventually(lambda: [n.level() for n in nodes] == [OLD] * 3),
          [n.level() for n in nodes])
    writer.start()
    for node in nodes[:2]:
        node.stop()
        node.start(OWN)
        check(f"n{node.number} serves as the newer build", eventually(node.serves), node.said())
    check("mixed builds keep to what all know", [n.level() for n in nodes] == [OLD] * 3)
    early = nodes[0].spread()
    check("until then nothing is spread", not early.ok and "feature level is too low" in early.err, early)
    nodes[0].stop()
    nodes[0].start(OLD)
    check("until then a node may go back", eventually(nodes[0].serves), nodes[0].said())
    for node in (nodes[0], nodes[2]):
        node.stop()
        node.start(OWN)
        check(f"n{node.number} serves as the newer build", eventually(node.serves), node.said())
    check("when all have it the region uses it",
          eventually(lambda: [n.level() for n in nodes] == [OWN] * 3), [n.level() for n in nodes])
    check("the region can be spread", eventually(lambda: nodes[0].spread().ok), nodes[0].said())
    nodes[1].stop()
    nodes[1].start(OLD)
    check("the old build ends", nodes[1].ends() == 3, nodes[1].said())
    check("and says why", "install the newer build" in nodes[1].said(), nodes[1].said())
    nodes[1].start(OWN)
    check("the newer one goes on", eventually(nodes[1].serves), nodes[1].said())
    for node in nodes:
        node.stop()
        node.start(NEXT)
        check(f"n{node.number} serves as the next build", eventually(node.serves), node.said())
    check("and so on", eventually(lambda: [n.level() for n in nodes] == [NEXT] * 3), [n.level() for n in nodes])
    nodes[2].stop()
    nodes[2].start(OWN)
    check("this build ends then", nodes[2].ends() == 3, nodes[2].said())
    nodes[2].start(NEXT)
    check("the next one goes on", eventually(nodes[2].serves), nodes[2].said())
    writer.stopped = True
    writer.join(60)
    found = nodes[1].ctl("get", "count", "--print-value-only").out.strip()
    check(f"no acknowledged write of {writer.value} is lost", writer.value > 0 and int(found or 0) >= writer.value, found)
finally:
    writer.stopped = True
    for node in nodes:
        node.stop()
    if not failures:
        shutil.rmtree(directory, ignore_errors=True)
    else:
        print("data and logs in", directory)
print(f"upgrade: {len(failures)} failed")
sys.exit(1 if failures else 0)
