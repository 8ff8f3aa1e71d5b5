"""Servers to measure, what they cost, and gRPC bodies to send them."""
import json, os, shutil, signal, socket, subprocess, sys, time

FIRST_PORT = 21000


# --- protobuf, just enough for recorded bodies (field numbers: rpc.proto) ---

def varint(n):
    out = bytearray()
    while n >= 0x80:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def put(key, value):
    return field(1, key) + field(2, value)


def get(key, serializable):
    return field(1, key) + (field(7, 1) if serializable else b"")


def txn_update(key, value):
    # if MOD(key) > 0 then Put else Range: the shape of Kubernetes' update; GREATER so that a recorded
    # body goes on succeeding.
    compare = field(1, 1) + field(2, 2) + field(3, key) + field(6, 0)
    success = field(2, put(key, value))
    failure = field(1, field(1, key))
    return field(1, compare) + field(2, success) + field(3, failure)


# --- servers ---

def free_base(count):
    """A port from which `count` ports, ten apart and the ones after them, are free."""
    for base in range(FIRST_PORT, FIRST_PORT + 9000, 100):
        ok = True
        for i in range(count):
            for offset in (0, 1, 2):
                with socket.socket() as s:
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    try:
                        s.bind(("127.0.0.1", base + 10 * i + offset))
                    except OSError:
                        ok = False
        if ok:
            return base
    sys.exit("bench: no free ports")


class Server:
    """A cluster. `commands`: how each node is started again after `kill`."""

    def __init__(self, name, nodes, folder):
        self.name, self.nodes, self.folder = name, nodes, folder
        self.pids, self.ports, self.peer_ports = [], [], []
        self.processes, self.commands, self.tls = [], [], None

    def stop(self):
        for p in self.processes:
            p.send_signal(signal.SIGTERM)
        for p in self.processes:
            try:
                p.wait(20)
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait()

    def kill(self):
        """Every process at once, as when the power fails (what was written stays in the page cache)."""
        own = {p.pid for p in self.processes}
        for pid in set(self.pids) | own:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for p in self.processes:
            p.wait()
        end = time.time() + 10
        while any(os.path.exists(f"/proc/{pid}") for pid in self.pids) and time.time() < end:
            time.sleep(0.005)

    def start_again(self):
        log = open(os.path.join(self.folder, "log-again"), "a")
        self.processes = [subprocess.Popen(c, stdout=log, stderr=log) for c in self.commands]
        self.pids = [p.pid for p in self.processes]

    def data_bytes(self):
        total = 0
        for at, _, names in os.walk(self.folder):
            for name in names:
                try:
                    total += os.stat(os.path.join(at, name)).st_blocks * 512
                except OSError:
                    pass
        return total


def wait_for(what, seconds, log):
    end = time.time() + seconds
    while time.time() < end:
        if what():
            return
        time.sleep(0.1)
    sys.exit(f"bench: not ready after {seconds} s; see {log}")


def spread_polder(binary, server, replicas, log):
    """So many replicas a partition, and no rows elsewhere; waits until it is so."""
    at = ["--endpoints", f"http://127.0.0.1:{server.ports[0]}"]

    def order(*words):
        return subprocess.run([binary, "partition", *words, *at], stdout=log, stderr=log, timeout=60).returncode == 0

    def is_there():
        listed = subprocess.run([binary, "partition", "list", *at, "-o", "json"], capture_output=True, timeout=60)
        if listed.returncode != 0:
            return False
        return all(len(p["replicas"]) == replicas for p in json.loads(listed.stdout)["partitions"])

    wait_for(lambda: order("replicas", str(replicas)), 60, log.name)
    wait_for(lambda: order("spread", "on"), 60, log.name)
    wait_for(is_there, 120, log.name)


def start_polder(binary, nodes, folder, *more, tls=None):
    server = Server("polder", nodes, folder)
    base = free_base(nodes)
    log = open(os.path.join(folder, "log"), "w")
    data = os.path.join(folder, "data")
    server.processes.append(subprocess.Popen(
        [binary, "dev", "--data-dir", data, "--regions", "1", "--nodes", str(nodes),
         *([] if tls else ["--no-tls"]), "--base-port", str(base), *more], stdout=log, stderr=log))
    path = os.path.join(data, "dev.json")
    wait_for(lambda: os.path.exists(path), 60, log.name)
    with open(path) as f:
        description = json.load(f)
    server.tls = description["tls"]
    for node in description["regions"][0]["nodes"]:
        server.pids.append(node["pid"])
        server.ports.append(int(node["client"].rsplit(":", 1)[1]))
        server.peer_ports.append(int(node["peer"].rsplit(":", 1)[1]))
        server.commands.append([binary, "serve", "-c", os.path.join(data, node["name"], "node.yaml")])
    return server


def start_etcd(binary, nodes, folder, *more, tls=None):
    server = Server("etcd", nodes, folder)
    base = free_base(nodes)
    scheme = "https" if tls else "http"
    secure = []
    if tls:
        # The same kind of certificates as Polder's own.
        for name in ("server", "client"):
            subprocess.run([tls, "certs", "create", "--dir", folder, "--name", name, "--ip", "127.0.0.1"],
                           check=True, stdout=subprocess.DEVNULL)
        file = lambda name: os.path.join(folder, name)
        server.tls = {"ca": file("ca.crt"), "cert": file("client.crt"), "key": file("client.key")}
        secure = ["--cert-file", file("server.crt"), "--key-file", file("server.key"), "--client-cert-auth",
                  "--trusted-ca-file", file("ca.crt"), "--peer-cert-file", file("server.crt"),
                  "--peer-key-file", file("server.key"), "--peer-client-cert-auth",
                  "--peer-trusted-ca-file", file("ca.crt")]
    cluster = ",".join(f"n{i}={scheme}://127.0.0.1:{base + 10 * i + 1}" for i in range(nodes))
    for i in range(nodes):
        client, peer = [f"{scheme}://127.0.0.1:{base + 10 * i + k}" for k in (0, 1)]
        log = open(os.path.join(folder, f"log{i}"), "w")
        words = [binary, "--name", f"n{i}", "--data-dir", os.path.join(folder, f"data{i}"),
                 "--listen-client-urls", client, "--advertise-client-urls", client,
                 "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
                 "--initial-cluster", cluster, "--quota-backend-bytes", str(8 << 30), *secure, *more]
        p = subprocess.Popen(words, stdout=log, stderr=log)
        server.processes.append(p)
        server.commands.append(words)
        server.pids.append(p.pid)
        server.ports.append(base + 10 * i)
        server.peer_ports.append(base + 10 * i + 1)
    wait_for(lambda: revision(server) is not None, 60, folder)
    return server


# --- measuring ---

def cpu_seconds(pids):
    """User and system time, all threads, in the scheduler's nanoseconds: the process's own clock (of
    clock_getcpuclockid), which does not sample as the ticks of /proc/PID/stat do."""
    return sum(time.clock_gettime(~pid << 3 | 2) for pid in pids)


def rss_mb(pids):
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/status") as f:
            for line in f:
                if line.startswith("VmRSS"):
                    total += int(line.split()[1])
    return total / 1024


def written_bytes(pids):
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/io") as f:
            for line in f:
                if line.startswith("write_bytes"):
                    total += int(line.split()[1])
    return total


def messages(server):
    """TCP segments with data that the nodes have sent each other; a loopback segment is up to 64 KiB, so
    it is what one write sent: a message, or several in one. None where `ss` is missing."""
    if not shutil.which("ss") or server.nodes < 2:
        return None
    ports = {f"127.0.0.1:{p}" for p in server.peer_ports}
    output = subprocess.run(["ss", "-tinH"], capture_output=True, text=True).stdout
    total, ours = 0, False
    for line in output.splitlines():
        if not line[:1].isspace():
            words = line.split()
            ours = len(words) >= 5 and (words[3] in ports or words[4] in ports)
        elif ours:
            total += next((int(w.split(":")[1]) for w in line.split() if w.startswith("data_segs_out:")), 0)
    return total


class Syncs:
    """Counts fdatasync and fsync of some processes with perf's trace points; None where that is not allowed."""

    EVENTS = "syscalls:sys_enter_fdatasync,syscalls:sys_enter_fsync"
    possible = None

    def __init__(self, pids):
        self.process = None
        if Syncs.possible is None:
            Syncs.possible = bool(shutil.which("perf")) and subprocess.run(
                ["perf", "stat", "-e", Syncs.EVENTS, "true"], capture_output=True).returncode == 0
        if Syncs.possible:
            self.process = subprocess.Popen(
                ["perf", "stat", "-x", ",", "-e", Syncs.EVENTS, "-p", ",".join(map(str, pids))],
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            time.sleep(0.15)

    def count(self):
        if not self.process:
            return None
        self.process.send_signal(signal.SIGINT)
        _, text = self.process.communicate(timeout=20)
        return sum(int(line.split(",")[0]) for line in text.splitlines()
                   if "sys_enter_f" in line and line.split(",")[0].isdigit())


def etcdctl(server, *arguments):
    secure = []
    if server.tls:
        secure = ["--cacert", server.tls["ca"], "--cert", server.tls["cert"], "--key", server.tls["key"]]
    return subprocess.run(
        ["etcdctl", "--endpoints", f"{'https' if server.tls else 'http'}://127.0.0.1:{server.ports[0]}",
         "--dial-timeout", "2s", "--command-timeout", "5s", *secure, *arguments],
        env={**os.environ, "ETCDCTL_API": "3"}, capture_output=True, text=True)


def revision(server):
    r = etcdctl(server, "get", "bench/none", "-w", "json")
    return json.loads(r.stdout)["header"]["revision"] if r.returncode == 0 else None
