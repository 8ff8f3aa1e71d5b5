#!/usr/bin/env python3
"""A region that has been alone, and has compacted its history, gets a second one: its nodes are started again, one
after the other, with a configuration that names it. The new one gets what is left, then everything. Usage:
added.py POLDER [ETCDCTL]"""
import os, shutil, signal, subprocess, sys, tempfile
import script
from cluster import eventually, free_base_port, run
from script import check, failures

arguments = script.arguments(0)
directory = tempfile.mkdtemp(prefix="polder-added-")
base = free_base_port(12) + 60
COUNTS = {"r1": 3, "r2": 1}


def port(region, number):
    return base + (0 if region == "r1" else 40) + 10 * (number - 1)


class Node:
    def __init__(self, region, number):
        self.region, self.number, self.name = region, number, f"{region}-n{number}"
        self.url, self.process = f"http://127.0.0.1:{port(region, number)}", None

    def start(self, others):
        text = ['cluster: {name: "added", id: 77}', f'region: {{id: {self.region[1]}, name: "{self.region}"}}',
                f'node: {{id: {self.number}, name: "{self.name}"}}', f'dataDir: "{directory}/{self.name}/data"',
                "listen:", f'  client: "127.0.0.1:{port(self.region, self.number)}"',
                f'  peer: "127.0.0.1:{port(self.region, self.number) + 1}"', "nodes:"]
        for n in range(1, COUNTS[self.region] + 1):
            text += [f"  - id: {n}", f'    name: "{self.region}-n{n}"', f'    peer: "127.0.0.1:{port(self.region, n) + 1}"',
                     f'    client: ["http://127.0.0.1:{port(self.region, n)}"]']
        if others:
            text.append("regions:")
        for region in others:
            text += [f"  - id: {region[1]}", f'    name: "{region}"', "    nodes:"]
            text += [f'      - {{id: {n}, name: "{region}-n{n}", peer: "127.0.0.1:{port(region, n) + 1}"}}'
                     for n in range(1, COUNTS[region] + 1)]
        text += ["partitions: 4", "log: {level: info, format: text}"]
        os.makedirs(f"{directory}/{self.name}", exist_ok=True)
        with open(f"{directory}/{self.name}/node.yaml", "w") as f:
            f.write("\n".join(text) + "\n")
        self.process = subprocess.Popen(
            [arguments.polder, "serve", "-c", f"{directory}/{self.name}/node.yaml"],
            stdout=open(f"{directory}/{self.name}/log", "ab"), stderr=subprocess.STDOUT)

    def end(self, how=signal.SIGTERM):
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(40)

    def log(self):
        with open(f"{directory}/{self.name}/log") as f:
            return f.read()


ours = [Node("r1", n) for n in (1, 2, 3)]
new = Node("r2", 1)


def ctl(nodes, *words, stdin=None):
    return run([arguments.etcdctl, "--endpoints=" + ",".join(n.url for n in nodes), "--command-timeout=20s", *words],
               stdin=stdin)


def rows(nodes):
    lines = ctl(nodes, "get", "k/", "--prefix").out.split("\n")
    return dict(zip(lines[0::2], lines[1::2]))


def put_all(value, numbers):
    numbers = list(numbers)
    for at in range(0, len(numbers), 100):
        puts = "\n".join(f"put k/{n:05} {value}{n}" for n in numbers[at:at + 100])
        answer = ctl(ours, "txn", stdin=f"\n{puts}\n\n\n")
        if not answer.ok:
            return answer
    return None


try:
    for node in ours:
        node.start([])
    check("a region alone serves", eventually(lambda: ctl(ours, "put", "k/one", "v").ok, 20), ours[0].log()[-600:])
    failed = put_all("a", range(3000)) or put_all("b", range(0, 3000, 2)) or put_all("c", range(0, 3000, 10))
    check("3,000 keys are written, half of them again", not failed, failed)
    check("some are deleted", ctl(ours, "del", "k/00100", "k/00200").ok)
    revision = ctl(ours, "get", "k/one", "-w", "json").json["header"]["revision"]
    check("all history is compacted", ctl(ours, "compact", str(revision), "--physical").ok)
    check("a few writes more", put_all("d", range(7)) is None)
    before = rows(ours)
    check("2,901 keys are there", len(before) == 2901, len(before))

    new.start(["r1"])
    for node in ours:
        node.end()
        node.start(["r2"])
        check(f"{node.name} serves again, and has heard of a second region",
              eventually(lambda: ctl([node], "get", "k/one").ok, 20), node.log()[-600:])
    whole = eventually(lambda: rows([new]) == before, 30)
    found = rows([new])
    check("the new region gets everything", whole,
          (len(found), sorted(set(before.items()) ^ set(found.items()))[:5], new.log()[-600:]))
    told = sum("gets what is left" in node.log() for node in ours)
    check("of compacted history it got what is left", told >= 1, [n.log()[-300:] for n in ours])

    check("a write arrives there",
          ctl(ours, "put", "k/two", "v").ok and eventually(lambda: rows([new]).get("k/two") == "v", 15))
    check("one from there arrives here", eventually(lambda: ctl([new], "put", "k/three", "v").ok, 10)
          and eventually(lambda: rows(ours).get("k/three") == "v", 15))
    check("a key of before is deleted in both",
          ctl(ours, "del", "k/00001").ok and eventually(lambda: "k/00001" not in rows([new]), 15))
    ours[0].end(signal.SIGKILL)
    check("with a node of ours killed, writes go on arriving",
          eventually(lambda: ctl(ours[1:], "put", "k/four", "v").ok, 10)
          and eventually(lambda: rows([new]).get("k/four") == "v", 15))
    check("both hold the same", eventually(lambda: rows(ours[1:]) == rows([new]), 15))
finally:
    if failures:
        for node in [*ours, new]:
            print(f"--- {node.name}\n" + node.log()[-1500:])
    for node in [*ours, new]:
        node.end()
    shutil.rmtree(directory, ignore_errors=True)
print("FAILED: " + ", ".join(failures) if failures else "added: all good")
sys.exit(1 if failures else 0)
