#!/usr/bin/env python3
"""Polder beside etcd: CPU per request, throughput and latency of the same load on the same machine.

Closed loops by h2load (Debian: nghttp2-client) with recorded gRPC request bodies; CPU is user + system
time of all server processes, from /proc, divided by the requests. Variants are interleaved, several
rounds; the table shows medians with (min..max), and the ratio to etcd. Every round of writes is checked:
the store's revision must have moved by exactly the number of requests.

Lists, watches, leases and idleness follow (rows.py), a page and a JSON file at the end.

  Benchmarks/bench.py --polder .build/release/polder [--etcd etcd] [--rounds 3] [--requests 20000] [--out DIR]
"""
import argparse, json, os, shutil, statistics, subprocess, sys, tempfile, time

import rows
from page import write_page
from servers import *


WORKLOADS = {
    "put 256 B": ("KV/Put", lambda i: put(b"bench/%04d" % i, b"x" * 256), True),
    "get linearizable": ("KV/Range", lambda i: get(b"bench/%04d" % i, False), False),
    "get serializable": ("KV/Range", lambda i: get(b"bench/%04d" % i, True), False),
    "txn update 256 B": ("KV/Txn", lambda i: txn_update(b"bench/%04d" % i, b"x" * 256), True),
}


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


COLUMNS = [
    ("cpuMicros", "CPU us", 1), ("perSecond", "a second", 0), ("p50", "p50 ms", 1), ("p99", "p99 ms", 1),
    ("p999", "p99.9 ms", 1), ("alone", "alone ms", 1), ("rssMB", "RSS MB", 0),
    ("bytesPerRequest", "disk B", 0),
]

# put, get, update: against etcd's CPU (docs/performance.md).
TARGETS = {"put 256 B": {1: 1 / 5, 3: 1 / 4}, "get linearizable": 1 / 8, "get serializable": 1 / 8,
           "txn update 256 B": 1 / 4}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--polder", default=".build/release/polder")
    parser.add_argument("--etcd", default=shutil.which("etcd"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=20000)
    parser.add_argument("--nodes", default="1,3")
    parser.add_argument("--clients", default="64x1,64x16", help="connections x streams, comma separated")
    parser.add_argument("--workloads", default=",".join(WORKLOADS), help="of small requests; or none")
    parser.add_argument("--rows", default=",".join(rows.DEFAULT),
                        help="others: " + ", ".join(rows.ROWS) + "; or none")
    parser.add_argument("--growth", action="store_true",
                        help="puts with 1, 8, 64 partitions and on 3, 6, 9 nodes, without etcd")
    parser.add_argument("--out", default="bench-out", help="folder for bench.json and bench.html")
    options = parser.parse_args()
    for tool in ("h2load", "etcdctl"):
        if not shutil.which(tool):
            sys.exit(f"bench: {tool} is missing; apt-get install nghttp2-client etcd-client")
    if not os.path.exists(options.polder):
        sys.exit(f"bench: no {options.polder}; run `make build`")
    if not options.etcd:
        print("bench: no etcd found; its columns stay empty (apt-get install etcd-server)")
    workloads = [] if options.workloads == "none" else options.workloads.split(",")
    others = [] if options.rows == "none" else options.rows.split(",")
    if others and rows.grpcio is None:
        print("bench: no grpcio (pip install grpcio): lists, watches and leases are left out")
        others = []
    for name in workloads + others:
        if name not in WORKLOADS and name not in rows.ROWS:
            sys.exit(f"bench: no workload or row is called {name!r}")
    results = []
    for nodes in [int(n) for n in options.nodes.split(",")]:
        with Servers(options, nodes) as servers:
            for workload in workloads:
                for shape in options.clients.split(","):
                    small(options, servers, nodes, workload, shape, results)
            for name in others:
                other(options, servers, nodes, name, results)
    if options.growth:
        growth(options, results)
    os.makedirs(options.out, exist_ok=True)
    with open(os.path.join(options.out, "bench.json"), "w") as f:
        json.dump(results, f, indent=1)
    machine = f"{os.cpu_count()} CPUs, {os.uname().release}, {time.strftime('%Y-%m-%d')}"
    write_page(os.path.join(options.out, "bench.html"), results, machine)
    print(f"\n{options.out}/bench.html, {options.out}/bench.json")


class Servers:
    """Polder and, if there is one, etcd, of one shape, on the same disk."""

    def __init__(self, options, nodes, *more, etcd=True):
        self.options, self.nodes, self.more = options, nodes, more
        self.kinds = [("polder", start_polder, options.polder)]
        if etcd and options.etcd:
            self.kinds.append(("etcd", start_etcd, options.etcd))
        self.running = []

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory(
            prefix="polder-bench-", dir=os.environ.get("BENCH_DIR"))
        try:
            for name, start, binary in self.kinds:
                folder = os.path.join(self.folder.name, name)
                os.mkdir(folder)
                more = self.more if name == "polder" else ()
                self.running.append(start(binary, self.nodes, folder, *more))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for s in self.running:
            s.stop()
        self.folder.cleanup()

    def __iter__(self):
        return iter(self.running)

    @property
    def scratch(self):
        return self.folder.name


def small(options, servers, nodes, workload, shape, results, label=""):
    clients, streams = [int(x) for x in shape.split("x")]
    figures = {s.name: [] for s in servers}
    for s in servers:  # Warm up; the keys exist afterwards.
        run(s, "put 256 B", 8, 1, 400, servers.scratch)
    for _ in range(options.rounds):
        for s in servers:
            figures[s.name].append(
                run(s, workload, clients, streams, options.requests, servers.scratch))
    target = TARGETS[workload]
    if isinstance(target, dict):
        target = target.get(nodes)
    add(results, {"nodes": nodes, "workload": workload + label, "clients": shape, "figures": figures,
                  "target": target})


def other(options, servers, nodes, name, results):
    unit, prepare, work, most, target = rows.ROWS[name]
    if name == "limit" and "pages" not in options.rows.split(","):
        prepare = rows.prepare_pages
    figures = {s.name: [] for s in servers}
    if prepare:
        for s in servers:
            prepare(s)
    for _ in range(min(options.rounds, most or options.rounds)):
        for s in servers:
            figures[s.name].append(work(s, servers.scratch))
    add(results, {"nodes": nodes, "workload": f"{name} (a {unit})", "clients": "", "figures": figures,
                  "target": target})


def growth(options, results):
    for partitions in (1, 8, 64):
        with Servers(options, 3, "--partitions", str(partitions), etcd=False) as servers:
            small(options, servers, 3, "put 256 B", "64x1", results, f", {partitions} partitions")
    for nodes in (3, 6, 9):
        with Servers(options, nodes, etcd=False) as servers:
            small(options, servers, nodes, "put 256 B", "64x1", results, ", growing")


def add(results, row):
    results.append(row)
    print(f"\n{row['nodes']} node(s), {row['workload']}"
          + (f", {row['clients']} clients x streams" if row["clients"] else ""))
    figures = row["figures"]
    columns = [c for c in COLUMNS if any(c[0] in r for rounds in figures.values() for r in rounds)]
    print(" " * 10 + "".join(f"{title:>26}" for _, title, _ in columns))
    for name, rounds in figures.items():
        print(f"  {name:8}" + "".join(
            f"{spread([r[key] for r in rounds], digits):>26}" for key, _, digits in columns))
    if len(figures) == 2 and "cpuMicros" in figures["polder"][0]:
        ours, theirs = [statistics.median(r["cpuMicros"] for r in figures[n]) for n in figures]
        line = f"  ratio   CPU {ours / theirs:.3f} of etcd's" if theirs else "  ratio   none"
        if row["target"]:
            line += f", target {row['target']:.3f}: " + (
                "met" if ours <= theirs * row["target"] else "not met")
        if "perSecond" in figures["polder"][0]:
            rate = [statistics.median(r["perSecond"] for r in figures[n]) for n in figures]
            line += f"; {rate[0] / rate[1]:.2f} times as many a second"
        print(line)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
