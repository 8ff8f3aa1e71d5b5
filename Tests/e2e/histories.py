"""Histories of single keys as `polder check` reads them (docs/formats.md, "Histories"), and clients that make one."""
import random, threading, time

from cluster import run


def line(client, began, ended, what):
    """Times in seconds of one clock; ended None: it may have taken effect at any time or not at all."""
    end = "-" if ended is None else int(ended * 1e6)
    return f"{client} {int(began * 1e6)} {end} {what}"


def write(path, lines):
    with open(path, "w") as f:
        f.write("# polder history 1\n")
        f.writelines(each + "\n" for each in lines)


def check(polder, path):
    """Good if an order explains it, or if looking for one takes too long."""
    verdict = run([polder, "check", path], timeout=300)
    return verdict, verdict.ok or "undecided" in str(verdict) and "NOT" not in str(verdict)


def finds_what_is_wrong(polder, path):
    """A checker that has never failed proves nothing."""
    good = ["a 10 20 write k 1", "b 30 40 read k 1", "a 50 - delete k", "b 60 70 absent k"]
    stale = good + ["b 80 90 read k 1"]
    write(path, good)
    first = run([polder, "check", path])
    write(path, stale)
    second = run([polder, "check", path])
    return first.ok and second.code == 1 and "NOT linearizable" in str(second), (first, second)


class Client(threading.Thread):
    """Puts, deletes and linearizable gets of few keys by etcdctl, at the nodes of a region in turn."""

    def __init__(self, cluster, number, names, keys=5):
        super().__init__(daemon=True)
        self.cluster, self.number, self.names, self.keys = cluster, number, names, keys
        self.lines, self.answers, self.unknown, self.stopping = [], 0, 0, False
        self.luck = random.Random(number)

    def run(self):
        at, count = self.number, 0
        while not self.stopping:
            count += 1
            key, value = f"history/{self.luck.randrange(self.keys)}", f"c{self.number}-{count}"
            kind = self.luck.choice(("put", "put", "get", "get", "get", "del"))
            words = [kind, key, value] if kind == "put" else [kind, key]
            began = time.monotonic()
            answer = self.cluster.etcdctl(
                *words, *(["--print-value-only"] if kind == "get" else []), "--command-timeout=5s",
                at=self.names[at % len(self.names)])
            ended = time.monotonic()
            if not answer.ok:
                self.unknown += 1
                at += 1
                # A read without an answer says nothing.
                if kind == "get":
                    continue
            what = {"put": f"write {key} {value}", "del": f"delete {key}"}.get(kind)
            if kind == "get":
                value = answer.out.strip()
                what = f"read {key} {value}" if value else f"absent {key}"
            self.answers += answer.ok
            self.lines.append(line(f"c{self.number}", began, ended if answer.ok else None, what))

    def stop(self):
        self.stopping = True
        self.join()
