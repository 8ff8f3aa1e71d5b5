"""Starts real etcd and Polder with the same flags, one node or three, plain or with TLS."""
import os, shutil, signal, socket, ssl, subprocess, tempfile, threading, time, urllib.request

from client import Channel, Failed


def version_of(etcd):
    """"3.5.1" of an etcd binary."""
    out = subprocess.run([etcd, "--version"], capture_output=True, text=True, timeout=30).stdout
    return out.split("etcd Version:")[1].split()[0]


class Ports:
    """Ports of this run; none is handed out twice."""

    def __init__(self, base):
        self.next, self.lock = base, threading.Lock()

    def take(self):
        with self.lock:
            return self._take()

    def _take(self):
        while True:
            self.next += 1
            with socket.socket() as s:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    s.bind(("127.0.0.1", self.next))
                    return self.next
                except OSError:
                    continue


class Certificates:
    """An authority with a certificate for nodes and one for clients, made by `polder certs`."""

    def __init__(self, polder):
        self.dir = tempfile.mkdtemp(prefix="conformance-certs-")
        for name in ("node", "client"):
            subprocess.run(
                [polder, "certs", "create", "--dir", self.dir, "--name", name, "--ip", "127.0.0.1"],
                check=True, capture_output=True)
        path = lambda name: os.path.join(self.dir, name)
        self.client = {"ca": path("ca.crt"), "cert": path("client.crt"), "key": path("client.key")}
        self.flags = [
            "--cert-file", path("node.crt"), "--key-file", path("node.key"),
            "--trusted-ca-file", path("ca.crt"), "--client-cert-auth"]
        self.peer_flags = [
            "--peer-cert-file", path("node.crt"), "--peer-key-file", path("node.key"),
            "--peer-trusted-ca-file", path("ca.crt"), "--peer-client-cert-auth"]

    def remove(self):
        shutil.rmtree(self.dir, ignore_errors=True)


class Server:
    """`program`: the words that start an etcd (`[etcd]` or `[polder, "etcd"]`)."""

    def __init__(self, name, program, ports, nodes=1, certificates=None, flags=()):
        self.name, self.program, self.certificates = name, program, certificates
        self.dir = tempfile.mkdtemp(prefix="conformance-")
        scheme = "https" if certificates else "http"
        self.names = [f"n{i + 1}" for i in range(nodes)]
        self.urls = {n: f"{scheme}://127.0.0.1:{ports.take()}" for n in self.names}
        self.peers = {n: f"{scheme}://127.0.0.1:{ports.take()}" for n in self.names}
        self.flags, self.processes, self.channels = list(flags), {}, {}
        for n in self.names:
            self.start(n)
        for n in self.names:
            self.wait(n)

    @property
    def is_polder(self):
        return len(self.program) > 1

    def start(self, node):
        words = [
            *self.program, "--name", node, "--data-dir", f"{self.dir}/{node}",
            "--listen-client-urls", self.urls[node], "--advertise-client-urls", self.urls[node],
            "--listen-peer-urls", self.peers[node],
            "--initial-advertise-peer-urls", self.peers[node], "--initial-cluster",
            ",".join(f"{n}={self.peers[n]}" for n in self.names), "--log-level", "warn", *self.flags]
        if self.certificates:
            words += self.certificates.flags + self.certificates.peer_flags
        with open(f"{self.dir}/{node}.log", "ab") as log:
            self.processes[node] = subprocess.Popen(words, stdout=log, stderr=log, cwd=self.dir)

    def wait(self, node, seconds=60):
        end = time.time() + seconds
        while True:
            try:
                return self.channel(node).call("Range", {"key": "none"}, timeout=2)
            except Failed as failure:
                if time.time() > end or self.processes[node].poll() is not None:
                    raise RuntimeError(f"{self.name} {node}: {failure}\n{self.log(node)}") from None
                time.sleep(0.1)

    def upheavals(self):
        """How often its nodes have seen a leader change, or a revision that nothing was written with."""
        total, context = 0, None
        if self.certificates:
            files = self.certificates.client
            context = ssl.create_default_context(cafile=files["ca"])
            context.load_cert_chain(files["cert"], files["key"])
        for url in self.urls.values():
            try:
                with urllib.request.urlopen(url + "/metrics", timeout=10, context=context) as page:
                    for line in page.read().decode().splitlines():
                        if line.startswith(("etcd_server_leader_changes_seen_total ",
                                            "polder_void_revisions_total ")):
                            total += int(float(line.split()[1]))
            except OSError:
                pass  # It has ended, which is noticed elsewhere.
        return total

    def channel(self, node=None):
        node = node or self.names[0]
        if node not in self.channels:
            tls = self.certificates.client if self.certificates else None
            self.channels[node] = Channel(self.urls[node], tls)
        return self.channels[node]

    def log(self, node):
        with open(f"{self.dir}/{node}.log", errors="replace") as f:
            return "".join(f.readlines()[-15:])

    def end(self, node, number=signal.SIGTERM):
        process = self.processes.pop(node)
        process.send_signal(number)
        try:
            return process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def remove(self):
        for channel in self.channels.values():
            channel.close()
        for node in list(self.processes):
            self.end(node, signal.SIGKILL)
        shutil.rmtree(self.dir, ignore_errors=True)
