#!/usr/bin/env python3
"""Polder beside etcd: CPU per request, throughput and latency of the same load on the same machine.

CPU is user + system time of all server processes, divided by the requests. Variants are interleaved,
several rounds; the table shows medians with (min..max), the ratio to each etcd, and what the targets of
docs/performance.md say to it. Answers are verified; after a closed loop of writes the store's revision
must have moved by exactly their number.

  bench.py                                 all rows but the long ones (about half an hour)
  bench.py --rows closed,open --nodes 3    closed and open loops of small requests on three nodes
  bench.py --rows put,lone --rounds 5      some of them
  bench.py --rows growth,memory,crash,size --size 20      the long ones
  bench.py --rows open-put,open-get --rates 5000 --tls    over TLS
"""
import argparse, json, os, re, shutil, statistics, subprocess, sys, tempfile, time

import load, rows, servers
from page import write_page
from rows import DIGITS, LABELS, ROWS


def names():
    return rows.CLOSED_NAMES + list(rows.MIXES) + [r.name for r in ROWS]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--polder", default=".build/release/polder")
    parser.add_argument("--etcd", help="binaries of etcd, or none (default: those on the PATH and in /usr/bin)")
    parser.add_argument("--rows", default="default",
                        help="default, all, closed, open, or of: " + ", ".join(names()))
    parser.add_argument("--nodes", default="1,3", help="sizes of clusters (default 1,3)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=20000, help="of a closed loop, a round")
    parser.add_argument("--clients", default="64x1,64x16", help="connections x streams of closed loops")
    parser.add_argument("--rates", default="5000,10000", help="requests a second of open loops")
    parser.add_argument("--seconds", type=float, default=3, help="of an open loop, a round")
    parser.add_argument("--tls", action="store_true", help="open loops over TLS; other rows are left out")
    parser.add_argument("--idle-seconds", type=float, default=10)
    parser.add_argument("--memory-keys", type=int, default=1_000_000)
    parser.add_argument("--crash-gb", type=float, default=1)
    parser.add_argument("--size", type=float, default=20, help="GB of the row size; needs about three times that")
    parser.add_argument("--size-rate", type=int, default=1000)
    parser.add_argument("--micro", help="polder-micro: costs and allocations of each room")
    parser.add_argument("--first-port", type=int, default=21000)
    parser.add_argument("--out", default="bench-out", help="folder for bench.json and bench.html")
    return parser.parse_args()


class Bench:
    """One run: its options, its results, and the scratch folder of the servers that are up."""

    def __init__(self, options):
        self.options, self.results, self.scratch, self.paged = options, [], None, []
        self.nodes = [int(n) for n in options.nodes.split(",")]

    def servers(self, nodes, *more, etcd=True):
        return Servers(self, nodes, *more, etcd=etcd)

    def measure(self, up, nodes, title, work, rounds=None, targets=(), prepare=None):
        figures = {s.name: [] for s in up}
        for s in up:
            if prepare:
                prepare(s, self)
        for _ in range(min(self.options.rounds, rounds or self.options.rounds)):
            for s in up:
                figures[s.name].append(work(s, self))
        verdicts = [v for t in targets for v in t.judge(figures)]
        row = {"nodes": nodes, "title": title, "figures": figures,
               "targets": [{"text": text, "met": met} for text, met in verdicts]}
        self.results.append(row)
        show(row)
        return figures


class Servers:
    """Polder and every etcd that there is, of one shape, on the same disk."""

    def __init__(self, bench, nodes, *more, etcd=True):
        self.bench, self.nodes, self.more, options = bench, nodes, more, bench.options
        self.kinds = [("polder", servers.start_polder, options.polder)]
        if etcd:
            self.kinds += [(name, servers.start_etcd, binary) for name, binary in options.etcds.items()]
        self.running = []

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="polder-bench-", dir=os.environ.get("BENCH_DIR"))
        self.bench.scratch = self.folder.name
        tls = os.path.abspath(self.bench.options.polder) if self.bench.options.tls else None
        try:
            for name, start, binary in self.kinds:
                folder = os.path.join(self.folder.name, name.replace(" ", "-"))
                os.mkdir(folder)
                more = self.more if name == "polder" else ()
                server = start(binary, self.nodes, folder, *more, tls=tls)
                server.name = name
                self.running.append(server)
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


def spread(values, digits=1):
    return (f"{statistics.median(values):.{digits}f} "
            f"({min(values):.{digits}f}..{max(values):.{digits}f})")


def show(row):
    print(f"\n{row['nodes']} node(s), {row['title']}")
    for name, rounds in row["figures"].items():
        cells = []
        for key, label in LABELS.items():
            values = [r[key] for r in rounds if r.get(key) is not None]
            if values and not (key == "errors" and not any(values)):
                cells.append(f"{label} {spread(values, DIGITS.get(key, 1))}")
        print(f"  {name:12}" + "; ".join(cells))
    for target in row["targets"]:
        print(f"  {'met     ' if target['met'] else 'NOT MET '}{target['text']}")
    sys.stdout.flush()


def chosen(options):
    """Names of rows, in their order."""
    asked = set()
    for word in options.rows.split(","):
        groups = {"closed": rows.CLOSED_NAMES, "open": list(rows.MIXES), "all": names(), "none": [],
                  "default": rows.CLOSED_NAMES + list(rows.MIXES) + [r.name for r in ROWS if r.default]}
        if word not in groups and word not in names():
            sys.exit(f"bench: no row is called {word!r}; there are: {', '.join(names())}")
        asked |= set(groups.get(word, [word]))
    if options.tls:
        asked &= set(rows.MIXES)
    return [n for n in names() if n in asked]


def check(options):
    for tool, package in (("h2load", "nghttp2-client"), ("etcdctl", "etcd-client")):
        if not shutil.which(tool):
            sys.exit(f"bench: {tool} is missing; apt-get install {package}")
    if not os.path.exists(options.polder):
        sys.exit(f"bench: no {options.polder}; run `make build`")
    if not os.path.exists(load.GENERATOR):
        sys.exit("bench: no load generator; swift build -c release --package-path Benchmarks")
    options.etcds = found_etcds(options.etcd)
    if not options.etcds:
        print("bench: no etcd; its columns stay empty (apt-get install etcd-server, or --etcd FILE)")
    servers.FIRST_PORT = options.first_port


def found_etcds(given):
    """By their names, the newest first."""
    if given == "none":
        return {}
    found = {}
    for path in given.split(",") if given else [p for p in (shutil.which("etcd"), "/usr/bin/etcd") if p]:
        if not os.path.exists(path):
            if given:
                sys.exit(f"bench: no {path}")
            continue
        out = subprocess.run([path, "--version"], capture_output=True, text=True).stdout
        version = re.search(r"etcd Version: (\d+)\.(\d+)\.(\d+)", out)
        if version:
            found.setdefault(tuple(int(part) for part in version.groups()), path)
        elif given:
            sys.exit(f"bench: {path} is no etcd: it does not say its version")
    return {"etcd " + ".".join(map(str, version)): found[version] for version in sorted(found, reverse=True)}


def rows_of(name, options):
    if name in rows.CLOSED:
        return [rows.closed_row(name, shape) for shape in options.clients.split(",")]
    if name in rows.MIXES:
        return [rows.open_row(name, int(rate)) for rate in options.rates.split(",")]
    return [r for r in ROWS if r.name == name]


def main():
    options = arguments()
    check(options)
    bench = Bench(options)
    wanted = [r for name in chosen(options) for r in rows_of(name, options)]
    if rows.grpcio is None:
        left = [r.name for r in wanted if r.needs_grpc]
        if left:
            print(f"bench: no grpcio (pip install grpcio): {', '.join(left)} are left out")
        wanted = [r for r in wanted if not r.needs_grpc]
    floor = load.limits(os.environ.get("BENCH_DIR", tempfile.gettempdir()))
    show_limits(floor)
    micro = rooms(options)
    try:
        for nodes in bench.nodes:
            shared = [r for r in wanted if not r.run]
            if not shared:
                break
            with bench.servers(nodes) as up:
                for row in shared:
                    bench.measure(up, nodes, row.title, row.work, row.rounds, row.targets_for(nodes),
                                  row.prepare)
        for row in wanted:
            if row.run:
                row.run(bench)
    finally:
        write(bench, options, floor, micro)


def show_limits(floor):
    if not floor:
        return
    print("This machine, us (median, 1 % and 99 %): one fdatasync of 512 B "
          f"{floor['sync512'][0]:.0f} ({floor['sync512'][1]:.0f}..{floor['sync512'][2]:.0f}), of 4 KiB "
          f"{floor['sync4096'][0]:.0f}, of 64 KiB {floor['sync65536'][0]:.0f}; a round trip over loopback "
          f"{floor['roundTrip'][0]:.1f} on one processor, {floor['roundTripApart'][0]:.1f} between two, with "
          f"{floor['roundTripCPU']:.1f} and {floor['roundTripApartCPU']:.1f} of CPU at each end; "
          f"memcpy of 256 B {floor['copy256']:.3f}, of 1 MiB {floor['copy1048576']:.0f}")


def rooms(options):
    if not options.micro:
        return None
    out = subprocess.run([options.micro, "--json"], capture_output=True, text=True)
    print(out.stderr, end="")
    return json.loads(out.stdout) if out.stdout else None


def write(bench, options, floor, micro):
    os.makedirs(options.out, exist_ok=True)
    met = [t["met"] for row in bench.results for t in row["targets"]]
    print(f"\n{sum(met)} of {len(met)} targets met")
    version = lambda *words: subprocess.run(words, capture_output=True, text=True).stdout.split("\n")[0]
    document = {
        "machine": f"{os.cpu_count()} CPUs, {os.uname().release}, {time.strftime('%Y-%m-%d')}",
        "polder": version(options.polder, "--version"),
        "etcd": ", ".join(options.etcds) or None,
        "rounds": options.rounds, "limits": floor, "rooms": micro, "rows": bench.results,
    }
    with open(os.path.join(options.out, "bench.json"), "w") as f:
        json.dump(document, f, indent=1)
    write_page(os.path.join(options.out, "bench.html"), document)
    print(f"{options.out}/bench.html, {options.out}/bench.json")


if __name__ == "__main__":
    main()
