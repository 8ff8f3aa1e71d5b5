"""What is measured. A row runs the same work against every server, round by round, and returns figures;
CPU is user + system time of all server processes per unit of work. Targets: docs/performance.md.

Load comes from h2load (closed loops of small requests) and polder-load (everything else). A few calls of
leases are made with PyPI's grpcio: slow, which does not matter to the servers' CPU.
"""
import os, statistics, tempfile, time
from concurrent.futures import ThreadPoolExecutor

try:
    import grpc as grpcio
except ImportError:
    grpcio = None

import load
from servers import Syncs, cpu_seconds, field, get, messages, put, revision, rss_mb, spread_polder, txn_update, written_bytes

VALUE = os.urandom(128).hex().encode()  # 256 B that compress by a half, as polder-load's.


class Target:
    """`key` at most (or at least) `bound`, times etcd's figure if it is a share."""

    def __init__(self, key, most=None, least=None, share=True, text=None):
        self.key, self.most, self.least, self.share, self.text = key, most, least, share, text

    def judge(self, figures):
        """(what is asked and what was measured, met), beside each etcd; none if it was not measured."""
        ours = median(figures.get("polder", []), self.key)
        bound, word = (self.most, "<=") if self.most is not None else (self.least, ">=")
        others = {f" of {name}'s": median(rounds, self.key) for name, rounds in figures.items() if name != "polder"}
        for of, theirs in (others if self.share else {"": 1}).items():
            if ours is None or not theirs:
                continue
            ratio = ours / theirs
            met = ratio <= bound if self.most is not None else ratio >= bound
            yield f"{self.text or LABELS[self.key]} {word} {bound:.3g}{of}: {ratio:.3g}", met


def median(rounds, key):
    values = [r[key] for r in rounds if r.get(key) is not None]
    return statistics.median(values) if values else None


# Names of figures, and how many digits they need.
LABELS = {
    "cpuMicros": "CPU us", "perSecond": "a second", "p50": "p50 ms", "p90": "p90 ms", "p99": "p99 ms",
    "p999": "p99.9 ms", "max": "max ms", "alone": "p99 of gets alone ms", "beside": "p99 of gets beside ms",
    "delay50": "delay p50 ms", "delay99": "delay p99 ms", "openCPU": "CPU us at a fixed rate",
    "bytesPerRequest": "disk B", "syncsPerRequest": "syncs", "messagesPerRequest": "messages",
    "rssMB": "RSS MB", "seconds": "seconds", "corePercent": "% of a core, a node", "errors": "errors",
    "late99": "sent late p99 ms", "ownCPU": "generator us", "loadPerSecond": "loaded a second",
    "diskGB": "disk GB", "small99": "p99 at 1 GB ms", "growth99": "p99, large to small",
    "limitRatio": "p50 to the limit", "limitApart": "the same, processors apart", "putMicros": "CPU us of a put alone",
}
DIGITS = {"perSecond": 0, "rssMB": 0, "bytesPerRequest": 0, "syncsPerRequest": 3, "messagesPerRequest": 3,
          "p50": 2, "delay50": 2, "limitRatio": 2, "limitApart": 2, "seconds": 2, "corePercent": 2, "loadPerSecond": 0,
          "late99": 2, "growth99": 2, "errors": 0}


class Row:
    """`work(server, bench)` returns figures; `prepare(server, bench)` is done once. Rows with `own`
    servers start them themselves: `run(bench)`."""

    def __init__(self, name, title, work=None, prepare=None, rounds=None, targets=(), run=None, default=True,
                 needs_grpc=False):
        self.name, self.title, self.work, self.prepare, self.rounds = name, title, work, prepare, rounds
        self.targets, self.run, self.default, self.needs_grpc = targets, run, default, needs_grpc

    def targets_for(self, nodes):
        return self.targets.get(nodes, ()) if isinstance(self.targets, dict) else self.targets


def measured(server, work):
    cpu, start = cpu_seconds(server.pids), time.time()
    result = work()
    return cpu_seconds(server.pids) - cpu, time.time() - start, result


# --- closed loops of small requests: h2load ---

CLOSED = {
    "put": ("KV/Put", lambda i: put(b"bench/%04d" % i, VALUE), True),
    "get": ("KV/Range", lambda i: get(b"bench/%04d" % i, False), False),
    "stale": ("KV/Range", lambda i: get(b"bench/%04d" % i, True), False),
    "update": ("KV/Txn", lambda i: txn_update(b"bench/%04d" % i, VALUE), True),
}


def closed(server, bench, name, clients, streams, requests):
    method, body, writes = CLOSED[name]
    loads = max(server.nodes, 4)  # Several keys, and every node has clients.
    each, connections = requests // loads, max(1, clients // loads)
    before = revision(server) if writes else 0
    syncs = Syncs(server.pids) if writes else None
    sent, cpu, written, start = messages(server), cpu_seconds(server.pids), written_bytes(server.pids), time.time()
    running = [load.H2Load(server, method, body(i), each, connections, streams, bench.scratch, i)
               for i in range(loads)]
    latencies = sorted(l for r in running for l in r.finish())
    wall, done = time.time() - start, each * loads
    cpu, written = cpu_seconds(server.pids) - cpu, written_bytes(server.pids) - written
    figures = {"cpuMicros": cpu / done * 1e6, "perSecond": done / wall, **load.percentiles(latencies)}
    if writes:
        figures["bytesPerRequest"] = written / done
        synced = syncs.count()
        figures["syncsPerRequest"] = None if synced is None else synced / done
        figures["messagesPerRequest"] = None if sent is None else (messages(server) - sent) / done
        moved = revision(server) - before
        if moved != done:
            raise SystemExit(f"bench: {server.name} {name}: {done} writes moved the revision by {moved}")
    figures["rssMB"] = rss_mb(server.pids)
    return {k: v for k, v in figures.items() if v is not None}


CLOSED_TARGETS = {
    "put": {1: [Target("cpuMicros", most=1 / 5)],
            3: [Target("cpuMicros", most=1 / 4), Target("perSecond", least=3), Target("p99", most=1)]},
    "get": [Target("cpuMicros", most=1 / 8), Target("perSecond", least=4)],
    "stale": [Target("cpuMicros", most=1 / 8)],
    "update": [Target("cpuMicros", most=1 / 4)],
}
CLOSED_TITLES = {"put": "put 256 B", "get": "linearizable get", "stale": "serializable get",
                 "update": "Kubernetes update 256 B"}


def closed_row(name, shape):
    clients, streams = [int(x) for x in shape.split("x")]

    def prepare(server, bench):
        closed(server, bench, "put", 8, 1, 400)

    return Row(name, f"{CLOSED_TITLES[name]}, {clients} clients x {streams}",
               lambda s, b: closed(s, b, name, clients, streams, b.options.requests), prepare,
               targets=CLOSED_TARGETS[name])


# --- open loops: polder-load ---

MIXES = {"open-put": "put", "open-get": "get", "open-update": "update", "open-mixed": "put:1,get:8,update:1"}


def open_loop(server, bench, mix, rate, seconds=None):
    seconds = seconds or bench.options.seconds
    warm = 1
    cpu, _, report = measured(server, lambda: load.run(
        server, "--prepared", errors=True, mix=mix, rate=rate, seconds=seconds, warm=warm, keys=10_000,
        size=256, prefix="open/", connections=64, timeout=30))
    # The warm-up costs as much a request as the rest.
    share = seconds / (seconds + warm)
    late = report["late"].get("p99", 0)
    figures = {"cpuMicros": cpu * share / max(1, report["answered"]) * 1e6, "perSecond": report["perSecond"],
               "late99": late, "ownCPU": report["ownCPUMicros"], "errors": report["errors"],
               "curve": report["curve"]}
    figures.update({k: report["all"][k] for k in ("p50", "p90", "p99", "p999", "max") if k in report["all"]})
    return figures


def open_row(name, rate):
    return Row(name, f"{MIXES[name].split(':')[0] if name != 'open-mixed' else 'mixed (' + MIXES[name] + ')'}"
               f", {rate} a second from due times",
               lambda s, b: open_loop(s, b, MIXES[name], rate),
               lambda s, b: load.fill(s, "open/", 10_000, 256, 64),
               targets=[Target("p99", most=1)])


# --- one client ---

def run_lone(server, bench, requests=400):
    """One client that writes one thing after the other: latency, not throughput."""
    body = put(b"lone/key", VALUE)
    floor = load.limits(bench.scratch, 200)
    cpu, wall, latencies = measured(server, lambda: load.H2Load(
        server, "KV/Put", body, requests, 1, 1, bench.scratch).finish())
    figures = {"cpuMicros": cpu / requests * 1e6, "perSecond": requests / wall, **load.percentiles(latencies)}
    if floor:
        # The stricter one counts: a wake of a thread on another processor is several times dearer.
        for name, trip in (("limitRatio", "roundTrip"), ("limitApart", "roundTripApart")):
            figures[name] = figures["p50"] / (floor["sync4096"][0] / 1000 + 2 * floor[trip][0] / 1000)
    return figures


# --- lists ---

def prepare_list(server, bench):
    load.fill(server, "list/", 10_000, 1024)


def run_list(server, bench, requests=20):
    gets = dict(prefix="list/", keys=10_000, size=1024, mix="get", rate=500, seconds=3, connections=8, warm=0.5)
    lists = dict(prefix="list/", keys=10_000, size=1024, mix="page", limit=0, rate=0, outstanding=2,
                 connections=2, warm=0)
    alone = load.run(server, "--prepared", **gets)["all"]["p99"]
    cpu, wall, report = measured(server, lambda: load.run(
        server, "--prepared", **lists, requests=requests, seconds=60))
    running = load.start(server, "--prepared", **lists, seconds=4.5)
    time.sleep(0.2)
    beside = load.run(server, "--prepared", **gets)["all"]["p99"]
    load.finish(server, running)
    mb = requests * 10_000 * 1024 / 1e6
    return {"cpuMicros": cpu / mb * 1e6, "perSecond": mb / wall, "alone": alone, "beside": beside,
            "ownCPU": report["ownCPUMicros"] * requests / mb, "rssMB": rss_mb(server.pids)}


def prepare_pages(server, bench):
    if server not in bench.paged:
        load.fill(server, "page/", 100_000, 64)
        bench.paged.append(server)


def run_pages(server, bench, requests=400):
    cpu, wall, report = measured(server, lambda: load.run(
        server, "--prepared", prefix="page/", keys=100_000, size=64, mix="page", limit=500, rate=0,
        outstanding=1, connections=1, requests=requests, seconds=120, warm=0, timeout=60))
    return {"cpuMicros": cpu / requests * 1e6, "perSecond": requests / wall, "p50": report["all"]["p50"],
            "p99": report["all"]["p99"], "max": report["all"]["max"], "rssMB": rss_mb(server.pids)}


def run_limit(server, bench, requests=200):
    body = field(1, b"page/") + field(2, b"page0") + field(3, 1)
    cpu, wall, latencies = measured(server, lambda: load.H2Load(
        server, "KV/Range", body, requests, 2, 1, bench.scratch).finish())
    return {"cpuMicros": cpu / requests * 1e6, "perSecond": requests / wall, **load.percentiles(latencies)}


# --- watches ---

def watching(server, watch, watchers, streams, rate, seconds, outstanding):
    """As many puts as there may be, then some at a fixed rate: the cost and the number, then the delay."""
    shape = dict(prefix="watch/", keys=10_000, size=256, watchers=watchers, watch=watch, mix="put",
                 watch_streams=streams, connections=4, timeout=60)
    figures = {}
    flood = dict(rate=0, outstanding=outstanding, seconds=seconds, warm=0)
    total, _, report = measured(server, lambda: load.run(server, "--prepared", **shape, **flood))
    # With the creation of the watches, which is measured by a run without puts.
    created, _, _ = measured(server, lambda: load.run(
        server, "--prepared", **shape, rate=1, requests=1, seconds=1, warm=0))
    events = max(1, report["watch"]["events"])
    figures["cpuMicros"] = max(0, total - created) / events * 1e6
    figures["perSecond"] = report["watch"]["perSecond"]
    # What the puts of these events cost without any watcher.
    unwatched = {k: v for k, v in shape.items() if not k.startswith("watch")}
    cpu, _, puts = measured(server, lambda: load.run(server, "--prepared", **unwatched, **flood))
    figures["putMicros"] = cpu / puts["answered"] * 1e6
    report = load.run(server, "--prepared", **shape, rate=rate, seconds=seconds, warm=0.5)
    figures["delay50"], figures["delay99"] = report["watch"]["p50"], report["watch"]["p99"]
    figures["rssMB"] = rss_mb(server.pids)
    return figures


def prepare_watch(server, bench):
    load.fill(server, "watch/", 10_000, 256)


# --- leases ---

class Client:
    def __init__(self, server, node=0):
        self.channel = grpcio.insecure_channel(
            f"127.0.0.1:{server.ports[node % server.nodes]}",
            options=[("grpc.use_local_subchannel_pool", 1)])

    def call(self, method, message, timeout=60):
        return self.channel.unary_unary(f"/etcdserverpb.{method}")(message, timeout=timeout)

    def close(self):
        self.channel.close()


def lease_number(message):
    """Field 2 of LeaseGrantResponse, after the header."""
    at = 2 + message[1]
    assert message[0] == 10 and message[at] == 16
    value = shift = 0
    for byte in message[at + 1:]:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value


def grant(client, ttl):
    return lease_number(client.call("Lease/LeaseGrant", field(1, ttl)))


def run_keep_alive(server, bench, requests=10_000):
    client = Client(server)
    body = field(1, grant(client, 3600))
    client.close()
    cpu, wall, latencies = measured(server, lambda: load.H2Load(
        server, "Lease/LeaseKeepAlive", body, requests, 16, 4, bench.scratch).finish())
    return {"cpuMicros": cpu / requests * 1e6, "perSecond": requests / wall, **load.percentiles(latencies)}


def run_revoke(server, bench, rounds=5):
    client = Client(server)

    def work():
        for _ in range(rounds):
            lease = grant(client, 3600)
            for first in range(0, 1000, 100):
                body = b"".join(field(2, field(2, put(b"leased/%04d" % i, VALUE[:64]) + field(3, lease)))
                                for i in range(first, first + 100))
                client.call("KV/Txn", body)
            client.call("Lease/LeaseRevoke", field(1, lease))
    cpu, wall, _ = measured(server, work)
    client.close()
    return {"cpuMicros": cpu / rounds * 1e6, "perSecond": rounds / wall}


def run_grant(server, bench, rounds=300):
    client = Client(server)

    def work():
        for _ in range(rounds):
            client.call("Lease/LeaseRevoke", field(1, grant(client, 3600)))
    cpu, wall, _ = measured(server, work)
    client.close()
    return {"cpuMicros": cpu / rounds / 2 * 1e6, "perSecond": 2 * rounds / wall}


# --- clusters of their own: idle, growth, memory, size, crash ---

def run_idle(bench):
    for partitions in (8, 64):
        with bench.servers(3, "--partitions", str(partitions)) as servers:
            def work(server, bench):
                time.sleep(3)
                cpu, wall, _ = measured(server, lambda: time.sleep(bench.options.idle_seconds))
                return {"corePercent": 100 * cpu / wall / server.nodes, "rssMB": rss_mb(server.pids)}
            bench.measure(servers, 3, f"idle, {partitions} partitions", work, rounds=1,
                          targets=[Target("corePercent", most=1, share=False)])


def run_growth(bench):
    first = {}

    def one(series, label, nodes, *more, in_flight=256, replicas=0):
        with bench.servers(nodes, *more, etcd=False) as servers:
            for s in servers:
                if replicas:
                    with open(os.path.join(s.folder, "log-spread"), "w") as log:
                        spread_polder(bench.options.polder, s, replicas, log)
                load.fill(s, "grow/", 2000, 256, 64)

            def work(server, bench):
                sent, syncs = messages(server), Syncs(server.pids)
                cpu, _, report = measured(server, lambda: load.run(
                    server, "--prepared", prefix="grow/", keys=2000, size=256, mix="put", rate=0, warm=0,
                    outstanding=in_flight, connections=64, seconds=bench.options.seconds, timeout=60))
                done = report["answered"]
                synced = syncs.count()
                return {"cpuMicros": cpu / done * 1e6, "perSecond": report["perSecond"],
                        **{k: report["all"][k] for k in ("p50", "p99", "max")},
                        **({} if synced is None else {"syncsPerRequest": synced / done}),
                        **({} if sent is None else {"messagesPerRequest": (messages(server) - sent) / done})}
            targets = []
            if series in first:
                targets = [Target("cpuMicros", most=1.2 * first[series], share=False,
                                  text=f"CPU us within 20 % of {first[series]:.1f}:")]
            figures = bench.measure(servers, nodes, label, work, targets=targets)
            first.setdefault(series, median(figures["polder"], "cpuMicros"))

    for partitions in (1, 8, 64):
        one("partitions", f"put 256 B, 256 in flight, {partitions} partitions", 3,
            "--partitions", str(partitions))
    for nodes in (3, 6, 9):
        # As much for each node. With three replicas a partition everybody has everything on three.
        one("nodes", f"put 256 B, {85 * nodes} in flight, three replicas", nodes, "--partitions", "64",
            in_flight=85 * nodes, replicas=3)


def run_memory(bench):
    count = bench.options.memory_keys
    for nodes in bench.nodes:
        with bench.servers(nodes) as servers:
            def work(server, bench):
                report = load.fill(server, "memory/", count, 256)
                watchers = load.start(
                    server, "--prepared", prefix="memory/", keys=count, size=256, watchers=10_000, rate=1,
                    watch_streams=100, connections=4, seconds=15, warm=0)
                time.sleep(12)
                memory = rss_mb(server.pids)
                load.finish(server, watchers)
                return {"rssMB": memory, "loadPerSecond": report["perSecond"]}
            bench.measure(servers, nodes, f"{count:,} keys of 256 B, 10,000 watchers", work, rounds=1,
                          targets=[Target("rssMB", most=1 / 2)])


def run_size(bench):
    """One node: what a key costs among many, against what it costs among few. etcd stops at 8 GB."""
    size, bytes_each = bench.options.size, 4096
    per_gb = 10 ** 9 // bytes_each

    def work(server, bench):
        # The larger size is a multiple of the smaller one, written over it.
        quiet = disk_sync_ms(bench.scratch)

        def latency(keys):
            # What loading has left to be compacted belongs to the load, and so does what a disk behind a
            # host has still to write of it; it has its moments without that.
            settle(server)
            rest(bench.scratch, quiet)
            reports = [load.run(server, "--prepared", prefix="size/", keys=keys, size=bytes_each, seconds=8,
                                mix="put:1,get:1", rate=bench.options.size_rate, connections=16, timeout=60)
                       for _ in range(3)]
            return sorted(reports, key=lambda report: report["all"]["p99"])[1]
        small = load.fill(server, "size/", per_gb, bytes_each, 128)
        few = latency(per_gb)
        start = time.time()
        load.fill(server, "size/", int(per_gb * size), bytes_each, 128)
        rate = int(per_gb * size) / (time.time() - start)
        many = latency(int(per_gb * size))
        return {"small99": few["all"]["p99"], "p99": many["all"]["p99"], "p50": many["all"]["p50"],
                "max": many["all"]["max"], "growth99": many["all"]["p99"] / few["all"]["p99"],
                "rssMB": rss_mb(server.pids), "diskGB": server.data_bytes() / 1e9, "loadPerSecond": rate}
    with bench.servers(1, etcd=size <= 5) as servers:
        bench.measure(servers, 1, f"{size:g} GB of data, values of 4 KiB, {bench.options.size_rate}/s", work,
                      rounds=1, targets=[Target("growth99", most=1.5, share=False)])


def settle(server, limit=180):
    """Until it does nothing of its own any more."""
    end = time.time() + limit
    while time.time() < end:
        before = cpu_seconds(server.pids)
        time.sleep(3)
        if cpu_seconds(server.pids) - before < 0.15:
            return


def disk_sync_ms(folder, rounds=200):
    """p90 of a written block's fdatasync, one each 5 ms."""
    times = []
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        for _ in range(rounds):
            os.pwrite(file.fileno(), bytes(4096), 0)
            start = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - start)
            time.sleep(0.005)
    return sorted(times)[rounds * 9 // 10] * 1e3


def rest(folder, quiet, limit=120):
    """Until the disk is about as fast as when it was `quiet`, twice in a row."""
    end, good = time.time() + limit, 0
    while good < 2 and time.time() < end:
        good = good + 1 if disk_sync_ms(folder) <= quiet * 1.5 + 0.2 else 0


def first_read(server, limit=120):
    """Seconds from now until some node answers a linearizable read."""
    start = time.time()

    def ask(port):
        while time.time() - start < limit:
            channel = grpcio.insecure_channel(
                f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)])
            try:
                # A node that listens already holds the read until it can serve it.
                channel.unary_unary("/etcdserverpb.KV/Range")(field(1, b"crash/00000001"), timeout=15)
                return time.time() - start
            except grpcio.RpcError:
                time.sleep(0.01)
            finally:
                channel.close()
        return limit

    with ThreadPoolExecutor(len(server.ports)) as pool:
        return min(pool.map(ask, server.ports))


def run_crash(bench):
    gb = bench.options.crash_gb
    for nodes in bench.nodes:
        with bench.servers(nodes) as servers:
            for server in servers:
                load.fill(server, "crash/", int(gb * 10 ** 9 / 1024), 1024)

            def work(server, bench):
                server.kill()
                server.start_again()
                seconds = first_read(server)
                # The data is there: every page of it.
                keys = int(gb * 10 ** 9 / 1024)
                load.run(server, "--prepared", prefix="crash/", keys=keys, size=1024, mix="page", limit=10_000,
                         rate=0, outstanding=1, connections=1, requests=max(1, keys // 10_000), seconds=600, warm=0,
                         timeout=60)
                return {"seconds": seconds, "rssMB": rss_mb(server.pids)}
            bench.measure(servers, nodes, f"start after kill -9 with {gb:g} GB", work,
                          targets=[Target("seconds", most=3, share=False), Target("seconds", most=1)])


CLOSED_NAMES = list(CLOSED)
ROWS = [
    Row("lone", "put of a single client", run_lone, targets=[
        Target("limitRatio", most=2, share=False, text="p50, to one fdatasync and two round trips,")]),
    Row("list", "list of 10,000 x 1 KiB, per MB", run_list, prepare_list, targets=[
        Target("cpuMicros", most=1 / 3), Target("perSecond", least=3), Target("beside", most=1)]),
    Row("pages", "through 100,000 keys by pages of 500, with count", run_pages, prepare_pages, targets=[
        Target("cpuMicros", most=1 / 3), Target("perSecond", least=3)]),
    Row("limit", "range with limit 1 over 100,000 keys, with count", run_limit, prepare_pages, targets=[
        Target("cpuMicros", most=1 / 50)]),
    Row("fan-out", "event; 1 put to 1,000 watchers",
        lambda s, b: watching(s, "same", 1000, 100, 50, b.options.seconds, 4), prepare_watch,
        targets=[Target("cpuMicros", most=1 / 5), Target("delay99", most=1)]),
    Row("watchers", "event; 10,000 watchers on 10,000 ranges",
        lambda s, b: watching(s, "each", 10_000, 100, 1000, b.options.seconds, 64), prepare_watch,
        targets=[Target("cpuMicros", most=1 / 5), Target("delay99", most=1)]),
    Row("keep-alive", "keep-alive", run_keep_alive, targets=[Target("cpuMicros", most=1 / 4)], needs_grpc=True),
    Row("grant", "grant or revoke of a lease without keys", run_grant, targets=[Target("cpuMicros", most=1 / 4)],
        needs_grpc=True),
    Row("revoke", "grant, 1,000 keys by 100 in a Txn, revoke", run_revoke,
        targets=[Target("cpuMicros", most=1 / 4)], needs_grpc=True),
    Row("idle", "idle", run=run_idle),
    Row("growth", "growth", run=run_growth, default=False),
    Row("memory", "memory", run=run_memory, default=False),
    Row("crash", "start after a crash", run=run_crash, default=False, needs_grpc=True),
    Row("size", "size", run=run_size, default=False),
]
