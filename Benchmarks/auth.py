#!/usr/bin/env python3
"""What authentication costs: the same load with it off and on, with simple tokens and with JSON web
tokens; and gets while many clients have their passwords checked.

CPU is user + system time of the server's process, divided by the requests: on a shared machine it says
more than requests a second. Off and on are interleaved, several rounds, and the table shows medians.

  Benchmarks/auth.py --polder .build/release/polder [--etcd etcd] [--rounds 5] [--requests 40000]
"""
import argparse, os, shutil, statistics, subprocess, sys, tempfile, threading, time

import grpc as grpcio

from load import grpc
from servers import Server, field, free_base, get, put, wait_for


def cpu_of(pid):
    """Seconds; finer than the ticks of /proc/PID/stat."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/schedstat") as f:
            total += int(f.read().split()[0])
    return total / 1e9


class Node:
    """One node with etcd's flags; a user who may do everything with [a, b), and her token."""

    def __init__(self, name, words, folder, tokens):
        self.name = name
        os.makedirs(folder)
        base = free_base(1)
        flags = []
        if tokens == "jwt":
            private, public = folder + "/key.pem", folder + "/key.pub"
            for command in (["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout",
                             "-out", private],
                            ["openssl", "ec", "-in", private, "-pubout", "-out", public]):
                subprocess.run(command, check=True, capture_output=True)
            flags = ["--auth-token",
                     f"jwt,pub-key={public},priv-key={private},sign-method=ES256,ttl=60m"]
        client, peer = f"http://127.0.0.1:{base}", f"http://127.0.0.1:{base + 1}"
        self.server, log = Server(name, 1, folder), open(folder + "/log", "w")
        process = subprocess.Popen(
            [*words, "--name", "n", "--data-dir", folder + "/data", "--listen-client-urls", client,
             "--advertise-client-urls", client, "--listen-peer-urls", peer,
             "--initial-advertise-peer-urls", peer, "--initial-cluster", f"n={peer}", *flags],
            stdout=log, stderr=log)
        self.server.processes.append(process)
        self.pid, self.port, self.folder, self.token = process.pid, base, folder, ""
        self.channel = grpcio.insecure_channel(f"127.0.0.1:{base}")

        def isUp():
            try:
                self.call("KV/Range", field(1, b"a"), timeout=1)
                return True
            except grpcio.RpcError:
                return False
        wait_for(isUp, 60, log.name)
        for method, message in (
                ("UserAdd", field(1, b"root") + field(2, b"r")), ("RoleAdd", field(1, b"root")),
                ("UserGrantRole", field(1, b"root") + field(2, b"root")),
                ("UserAdd", field(1, b"ann") + field(2, b"a")), ("RoleAdd", field(1, b"some")),
                ("RoleGrantPermission",
                 field(1, b"some") + field(2, field(1, 2) + field(2, b"a") + field(3, b"b"))),
                ("UserGrantRole", field(1, b"ann") + field(2, b"some"))):
            self.call("Auth/" + method, message)
        self.call("KV/Put", put(b"a/key", b"x" * 256))

    def call(self, method, message, token=None, timeout=10):
        metadata = [("token", token)] if token else []
        return self.channel.unary_unary(f"/etcdserverpb.{method}")(
            message, timeout=timeout, metadata=metadata)

    def authenticate(self, name, password):
        answer = self.call("Auth/Authenticate", field(1, name) + field(2, password),
                           timeout=60)
        at = answer.index(b"\x12") if answer[0] != 0x0A else 2 + answer[1]
        size, at = answer[at + 1], at + 2
        if size >= 0x80:
            size, at = size & 0x7F | answer[at] << 7, at + 1
        return answer[at:at + size].decode()

    def turn(self, on):
        # Long time-outs: password checks give way to everything else on a busy machine.
        if on:
            self.call("Auth/AuthEnable", b"")
            self.token = self.authenticate(b"ann", b"a")
        else:
            self.call("Auth/AuthDisable", b"", token=self.authenticate(b"root", b"r"))
            self.token = ""

    def load(self, method, body, requests, clients, streams):
        """CPU microseconds a request, requests a second, p99 in ms."""
        path, log = self.folder + "/body", self.folder + "/times"
        with open(path, "wb") as f:
            f.write(grpc(body))
        if os.path.exists(log):
            os.unlink(log)
        more = ["-H", "token: " + self.token] if self.token else []
        cpu, start = cpu_of(self.pid), time.time()
        done = subprocess.run(
            ["h2load", "-n", str(requests), "-c", str(clients), "-m", str(streams), "-t", "1", "-d", path,
             "-H", "content-type: application/grpc", "-H", "te: trailers", *more,
             f"--log-file={log}", f"http://127.0.0.1:{self.port}/etcdserverpb.{method}"],
            capture_output=True, text=True, timeout=600)
        wall, cpu = time.time() - start, cpu_of(self.pid) - cpu
        # h2load counts HTTP's status; gRPC's is not 0 when something was refused: it is checked once.
        if f"{requests} succeeded" not in done.stdout:
            sys.exit(f"{self.name}: not every request succeeded:\n{done.stdout}")
        with open(log) as f:
            times = sorted(int(line.split("\t")[2]) for line in f)
        return (cpu / requests * 1e6, requests / wall,
                times[min(len(times) - 1, int(len(times) * 0.99))] / 1000)

    def stop(self):
        self.channel.close()
        self.server.stop()


LOADS = {
    "get": ("KV/Range", get(b"a/key", False), 16, 8),
    "get serializable": ("KV/Range", get(b"a/key", True), 16, 8),
    "put 256 B": ("KV/Put", put(b"a/key", b"x" * 256), 16, 8),
}


def compare(node, title, options):
    for name, (method, body, clients, streams) in LOADS.items():
        figures = {False: [], True: []}
        for _ in range(options.rounds):
            for on in (False, True):
                if on:
                    node.turn(True)
                node.call(method, body, token=node.token)
                figures[on].append(node.load(method, body, options.requests, clients, streams))
                if on:
                    node.turn(False)
        off, on = [[statistics.median(r[i] for r in figures[w]) for i in range(3)] for w in (False, True)]
        print(f"{title:22} {name:18} CPU {off[0]:7.2f} -> {on[0]:7.2f} us  "
              f"({off[0] / on[0] * 100:5.1f} % of the work for the same CPU)   "
              f"{off[1]:8.0f} -> {on[1]:8.0f} a second ({on[1] / off[1] * 100:5.1f} %)", flush=True)


def storm(node, title, clients=16, seconds=4):
    """Gets beside clients that have their passwords checked, one after the other."""
    node.turn(True)
    method, body = LOADS["get"][:2]
    alone = node.load(method, body, 4000, 1, 1)[2]
    stop, checks, lock = threading.Event(), [0], threading.Lock()

    def check(i):
        channel = grpcio.insecure_channel(
            f"127.0.0.1:{node.port}", options=[("grpc.use_local_subchannel_pool", 1)])
        call = channel.unary_unary("/etcdserverpb.Auth/Authenticate")
        while not stop.is_set():
            try:
                call(field(1, b"ann") + field(2, b"a" if i % 2 else b"wrong"), timeout=60)
            except grpcio.RpcError:
                pass
            with lock:
                checks[0] += 1
        channel.close()

    threads = [threading.Thread(target=check, args=(i,), daemon=True) for i in range(clients)]
    for t in threads:
        t.start()
    time.sleep(1)
    start, before, worst = time.time(), checks[0], []
    while time.time() - start < seconds:
        worst.append(node.load(method, body, 2000, 1, 1)[2])
    rate = (checks[0] - before) / (time.time() - start)
    stop.set()
    for t in threads:
        t.join()
    print(f"{title:22} gets' p99 {alone:.2f} ms alone, {statistics.median(worst):.2f} ms beside "
          f"{clients} clients with passwords ({rate:.0f} checks a second)", flush=True)
    node.turn(False)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--polder", default=".build/release/polder")
    parser.add_argument("--etcd", default="", help="compared too, if given")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=40000)
    parser.add_argument("--tokens", default="simple,jwt")
    options = parser.parse_args()
    if not shutil.which("h2load"):
        sys.exit("auth: h2load is missing; apt-get install nghttp2-client")
    kinds = [("polder", [options.polder, "etcd"])] + ([("etcd", [options.etcd])] if options.etcd else [])
    for tokens in options.tokens.split(","):
        for name, words in kinds:
            with tempfile.TemporaryDirectory(prefix="polder-auth-") as folder:
                node = Node(name, words, folder + "/node", tokens)
                try:
                    compare(node, f"{name}, {tokens} tokens", options)
                    storm(node, f"{name}, {tokens} tokens")
                finally:
                    node.stop()


if __name__ == "__main__":
    main()
