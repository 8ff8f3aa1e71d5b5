#!/usr/bin/env python3
"""Polder beside etcd: CPU per request, throughput and latency of the same load on the same machine.

Closed loops by h2load (Debian: nghttp2-client) with recorded gRPC request bodies; CPU is user + system
time of all server processes, from /proc, divided by the requests. Variants are interleaved, several
rounds; the table shows medians with (min..max), and the ratio to etcd. Every round of writes is checked:
the store's revision must have moved by exactly the number of requests.

  Benchmarks/bench.py --polder .build/release/polder [--etcd etcd] [--rounds 3] [--requests 20000] [--out DIR]
"""
import argparse, json, os, shutil, signal, socket, statistics, subprocess, sys, tempfile, time

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


WORKLOADS = {
    "put 256 B": ("KV/Put", lambda i: put(b"bench/%04d" % i, b"x" * 256), True),
    "get linearizable": ("KV/Range", lambda i: get(b"bench/%04d" % i, False), False),
    "get serializable": ("KV/Range", lambda i: get(b"bench/%04d" % i, True), False),
    "txn update 256 B": ("KV/Txn", lambda i: txn_update(b"bench/%04d" % i, b"x" * 256), True),
}


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


def start_polder(binary, nodes, folder):
    server = Server("polder", nodes, folder)
    base = free_base(nodes)
    log = open(os.path.join(folder, "log"), "w")
    data = os.path.join(folder, "data")
    server.processes.append(subprocess.Popen(
        [binary, "dev", "--data-dir", data, "--regions", "1", "--nodes", str(nodes), "--no-tls",
         "--base-port", str(base)], stdout=log, stderr=log))
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


def run(server, workload, clients, streams, requests, scratch):
    method, body, writes = WORKLOADS[workload]
    loads = max(server.nodes, 4)  # Several keys, and every node has clients.
    each, connections = requests // loads, max(1, clients // loads)
    before_revision = revision(server)
    commands = []
    for i in range(loads):
        path = os.path.join(scratch, f"body{i}")
        with open(path, "wb") as f:
            f.write(grpc(body(i)))
        log = os.path.join(scratch, f"log{i}")
        if os.path.exists(log):
            os.unlink(log)
        commands.append([
            "h2load", "-n", str(each), "-c", str(connections), "-m", str(streams), "-t", "1",
            "-d", path, "-H", "content-type: application/grpc", "-H", "te: trailers",
            f"--log-file={log}",
            f"http://127.0.0.1:{server.ports[i % server.nodes]}/etcdserverpb.{method}"])
    cpu, written, start = cpu_seconds(server.pids), written_bytes(server.pids), time.time()
    running = [subprocess.Popen(c, stdout=subprocess.PIPE, text=True) for c in commands]
    outputs = [p.communicate(timeout=300)[0] for p in running]
    wall = time.time() - start
    cpu = cpu_seconds(server.pids) - cpu
    written = written_bytes(server.pids) - written
    done = each * loads
    for output in outputs:
        if f"{each} succeeded" not in output:
            sys.exit(f"bench: {server.name} {workload}: not every request succeeded:\n{output}")
    if writes:
        moved = revision(server) - before_revision
        if moved != done:
            sys.exit(f"bench: {server.name} {workload}: {done} writes moved the revision by {moved}")
    latencies = []
    for i in range(loads):
        with open(os.path.join(scratch, f"log{i}")) as f:
            latencies += [int(line.split("\t")[2]) for line in f]
    latencies.sort()
    pick = lambda q: latencies[min(len(latencies) - 1, int(len(latencies) * q))] / 1000
    return {
        "cpuMicros": cpu / done * 1e6, "perSecond": done / wall, "p50": pick(0.5), "p90": pick(0.9),
        "p99": pick(0.99), "p999": pick(0.999), "max": latencies[-1] / 1000,
        "rssMB": rss_mb(server.pids), "bytesPerRequest": written / done,
    }


def spread(values, digits=1):
    return (f"{statistics.median(values):.{digits}f} "
            f"({min(values):.{digits}f}..{max(values):.{digits}f})")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--polder", default=".build/release/polder")
    parser.add_argument("--etcd", default=shutil.which("etcd"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=20000)
    parser.add_argument("--nodes", default="1,3")
    parser.add_argument("--clients", default="64x1,64x16", help="connections x streams, comma separated")
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    parser.add_argument("--out", help="folder for bench.json")
    options = parser.parse_args()
    for tool in ("h2load", "etcdctl"):
        if not shutil.which(tool):
            sys.exit(f"bench: {tool} is missing; apt-get install nghttp2-client etcd-client")
    if not os.path.exists(options.polder):
        sys.exit(f"bench: no {options.polder}; run `make build`")
    if not options.etcd:
        print("bench: no etcd found; its columns stay empty (apt-get install etcd-server)")
    results = []
    for nodes in [int(n) for n in options.nodes.split(",")]:
        with tempfile.TemporaryDirectory(prefix="polder-bench-", dir=os.environ.get("BENCH_DIR")) as scratch:
            servers = []
            try:
                for name, start, binary in (("polder", start_polder, options.polder),
                                            ("etcd", start_etcd, options.etcd)):
                    if binary:
                        folder = os.path.join(scratch, name)
                        os.mkdir(folder)
                        servers.append(start(binary, nodes, folder))
                for workload in options.workloads.split(","):
                    for shape in options.clients.split(","):
                        clients, streams = [int(x) for x in shape.split("x")]
                        figures = {s.name: [] for s in servers}
                        for s in servers:  # Warm up; the keys exist afterwards.
                            run(s, "put 256 B", 8, 1, 400, scratch)
                        for _ in range(options.rounds):
                            for s in servers:
                                figures[s.name].append(
                                    run(s, workload, clients, streams, options.requests, scratch))
                        row = {"nodes": nodes, "workload": workload, "clients": shape, "figures": figures}
                        results.append(row)
                        show(row)
            finally:
                for s in servers:
                    s.stop()
    if options.out:
        os.makedirs(options.out, exist_ok=True)
        with open(os.path.join(options.out, "bench.json"), "w") as f:
            json.dump(results, f, indent=1)


def show(row):
    print(f"\n{row['nodes']} node(s), {row['workload']}, {row['clients']} clients x streams")
    print(f"  {'':8}{'CPU us/request':>24}{'requests/s':>26}{'p50 ms':>18}{'p99 ms':>20}"
          f"{'p99.9 ms':>20}{'RSS MB':>8}{'disk B/req':>12}")
    for name, rounds in row["figures"].items():
        column = lambda key: [r[key] for r in rounds]
        print(f"  {name:8}{spread(column('cpuMicros')):>24}{spread(column('perSecond'), 0):>26}"
              f"{spread(column('p50')):>18}{spread(column('p99')):>20}{spread(column('p999')):>20}"
              f"{statistics.median(column('rssMB')):>8.0f}"
              f"{statistics.median(column('bytesPerRequest')):>12.0f}")
    if len(row["figures"]) == 2:
        ours, theirs = [[r["cpuMicros"] for r in row["figures"][n]] for n in ("polder", "etcd")]
        rate = [[r["perSecond"] for r in row["figures"][n]] for n in ("polder", "etcd")]
        print(f"  ratio   CPU {statistics.median(ours) / statistics.median(theirs):.2f} of etcd's, "
              f"throughput {statistics.median(rate[0]) / statistics.median(rate[1]):.2f} times")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
