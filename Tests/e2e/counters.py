"""Clients that count, killers and books: what splits.py and moves.py have in common."""
import base64, json, os, signal, threading, time
import urllib.request
from cluster import eventually, run
from script import failures


class Writer(threading.Thread):
    """Counts up in keys of its own, at any node, by transactions that compare; reads at another node."""

    def __init__(self, number, urls):
        super().__init__(daemon=True)
        self.number, self.urls, self.stopped = number, urls, False
        self.values, self.wrong, self.failed, self.longest = {}, [], [], 0.0
        self.written = 0

    def call(self, url, path, body):
        request = urllib.request.Request(url + path, json.dumps(body).encode())
        return json.load(urllib.request.urlopen(request, timeout=10))

    def run(self):
        b64 = lambda text: base64.b64encode(text.encode()).decode()
        turn = 0
        while not self.stopped:
            turn += 1
            key = f"w{self.number}/{turn % 23}"
            value = str(self.values.get(key, 0) + 1)
            begun = time.time()
            try:
                self.call(self.urls[turn % len(self.urls)], "/v3/kv/put",
                          {"key": b64(key), "value": b64(value)})
                self.values[key] = int(value)
                self.written += 1
                got = self.call(self.urls[(turn + 1) % len(self.urls)], "/v3/kv/range", {"key": b64(key)})
                seen = base64.b64decode(got["kvs"][0]["value"]).decode()
                if seen != value:
                    self.wrong.append((key, value, seen))
            except Exception as error:
                # It may have happened: the same value is written again.
                self.failed.append(str(error))
                time.sleep(0.05)
            self.longest = max(self.longest, time.time() - begun)


def partitions(c):
    answer = run([c.polder, "partition", "list", "--dev", c.dir, "-o", "json"])
    return answer.json["partitions"] if answer.ok else []


def kill(c, *names):
    pids = [c.nodes[name]["pid"] for name in names]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    # Until polder dev has seen it, too: before that it takes the node for a running one.
    eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), 5, 0.02)


def hashes(c):
    found = set()
    for name in c.nodes:
        answer = c.etcdctl("endpoint", "hashkv", "-w", "json", at=name)
        if not answer.ok:
            return {name}
        found.add(json.loads(answer.out)[0]["HashKV"]["hash"])
    return found


def put_away(c, done):
    """Whose checks failed is left for whoever looks into it."""
    if done and not failures:
        c.remove()
    else:
        print(c.logs())
        c.stop()
        print("data and logs in", c.dir)
