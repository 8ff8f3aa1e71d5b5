"""Servers to measure, what they cost, and gRPC bodies to send them."""
import json, os, shutil, signal, socket, subprocess, sys, time

TICK = os.sysconf("SC_CLK_TCK")


# --- protobuf and gRPC, just enough for recorded bodies (field numbers: rpc.proto) ---

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


def grpc(message):
    return b"\0" + len(message).to_bytes(4, "big") + message


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
    for base in range(21000, 30000, 200):
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
    def __init__(self, name, nodes, folder):
        self.name, self.nodes, self.folder = name, nodes, folder
        self.pids, self.ports, self.processes = [], [], []

    def stop(self):
        for p in self.processes:
            p.send_signal(signal.SIGTERM)
        for p in self.processes:
            try:
                p.wait(20)
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait()


def wait_for(what, seconds, log):
    end = time.time() + seconds
    while time.time() < end:
        if what():
            return
        time.sleep(0.1)
    sys.exit(f"bench: not ready after {seconds} s; see {log}")


def start_polder(binary, nodes, folder, *more):
    server = Server("polder", nodes, folder)
    base = free_base(nodes)
    log = open(os.path.join(folder, "log"), "w")
    data = os.path.join(folder, "data")
    server.processes.append(subprocess.Popen(
        [binary, "dev", "--data-dir", data, "--regions", "1", "--nodes", str(nodes), "--no-tls",
         "--base-port", str(base), *more], stdout=log, stderr=log))
    path = os.path.join(data, "dev.json")
    wait_for(lambda: os.path.exists(path), 60, log.name)
    with open(path) as f:
        for node in json.load(f)["regions"][0]["nodes"]:
            server.pids.append(node["pid"])
            server.ports.append(int(node["client"].rsplit(":", 1)[1]))
    return server


def start_etcd(binary, nodes, folder):
    server = Server("etcd", nodes, folder)
    base = free_base(nodes)
    cluster = ",".join(f"n{i}=http://127.0.0.1:{base + 10 * i + 1}" for i in range(nodes))
    for i in range(nodes):
        client, peer = f"http://127.0.0.1:{base + 10 * i}", f"http://127.0.0.1:{base + 10 * i + 1}"
        log = open(os.path.join(folder, f"log{i}"), "w")
        p = subprocess.Popen(
            [binary, "--name", f"n{i}", "--data-dir", os.path.join(folder, f"data{i}"),
             "--listen-client-urls", client, "--advertise-client-urls", client,
             "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
             "--initial-cluster", cluster], stdout=log, stderr=log)
        server.processes.append(p)
        server.pids.append(p.pid)
        server.ports.append(base + 10 * i)
    wait_for(lambda: revision(server) is not None, 60, folder)
    return server


# --- measuring ---

def cpu_seconds(pids):
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


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


def etcdctl(server, *arguments):
    return subprocess.run(
        ["etcdctl", "--endpoints", f"127.0.0.1:{server.ports[0]}", "--dial-timeout", "2s",
         "--command-timeout", "5s", *arguments],
        env={**os.environ, "ETCDCTL_API": "3"}, capture_output=True, text=True)


def revision(server):
    r = etcdctl(server, "get", "bench/none", "-w", "json")
    return json.loads(r.stdout)["header"]["revision"] if r.returncode == 0 else None
