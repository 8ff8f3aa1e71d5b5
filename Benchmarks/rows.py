"""What a closed loop of small requests does not show: lists, watches, leases, memory, growth.

A row is a function of a server that returns figures; the same code runs against Polder and etcd. CPU
is user + system time of all server processes. Clients that are not h2load are gRPC of PyPI's grpcio:
slow, which does not matter to the servers' CPU, but makes "events/s" a floor and not a limit.
"""
import os, subprocess, threading, time

try:
    import grpc as grpcio
except ImportError:
    grpcio = None

from servers import cpu_seconds, field, grpc, put, rss_mb, varint

OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


# --- a client ---

class Client:
    def __init__(self, server, node=0):
        # A pool of its own, or all clients of this process would share one connection.
        self.channel = grpcio.insecure_channel(
            f"127.0.0.1:{server.ports[node % server.nodes]}",
            options=OPTIONS + [("grpc.use_local_subchannel_pool", 1)])

    def call(self, method, message, timeout=60):
        return self.channel.unary_unary(f"/etcdserverpb.{method}")(message, timeout=timeout)

    def close(self):
        self.channel.close()


def fields(message):
    """(number, value) pairs; only what is needed to count."""
    at = 0
    while at < len(message):
        tag, at = number(message, at)
        if tag & 7 == 0:
            value, at = number(message, at)
        else:
            size, at = number(message, at)
            value = message[at:at + size]
            at += size
        yield tag >> 3, value


def number(message, at):
    result = shift = 0
    while True:
        byte = message[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, at
        shift += 7


def load(server, prefix, count, size, lease=0):
    """`count` keys of `size` bytes, 100 in a transaction."""
    client = Client(server)
    value = os.urandom(size // 2).hex().encode()[:size]
    for first in range(0, count, 100):
        body = b""
        for i in range(first, min(first + 100, count)):
            one = put(prefix + b"%08d" % i, value) + (field(3, lease) if lease else b"")
            body += field(2, field(2, one))
        client.call("KV/Txn", body)
    client.close()


def end_of(prefix):
    return prefix[:-1] + bytes([prefix[-1] + 1])


def h2load(server, method, body, requests, clients, streams, scratch, name="body", node=0, log=None):
    path = os.path.join(scratch, name)
    with open(path, "wb") as f:
        f.write(grpc(body))
    command = [
        "h2load", "-n", str(requests), "-c", str(clients), "-m", str(streams), "-t", "1", "-w", "24",
        "-W", "24", "-d", path, "-H", "content-type: application/grpc", "-H", "te: trailers"]
    if log:
        if os.path.exists(log):
            os.unlink(log)
        command.append(f"--log-file={log}")
    command.append(f"http://127.0.0.1:{server.ports[node % server.nodes]}/etcdserverpb.{method}")
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finish(process, requests, what):
    output = process.communicate(timeout=600)[0]
    if f"{requests} succeeded" not in output:
        raise SystemExit(f"bench: {what}: not every request succeeded:\n{output}")
    return output


def measured(server, work):
    cpu, start = cpu_seconds(server.pids), time.time()
    result = work()
    return cpu_seconds(server.pids) - cpu, time.time() - start, result


def percentile(log, q):
    with open(log) as f:
        values = sorted(int(line.split("\t")[2]) for line in f)
    return values[min(len(values) - 1, int(len(values) * q))] / 1000


# --- rows: prepare(server), then run(server, scratch) -> {"cpuMicros" per `unit`, ...} ---

def run_lone(server, scratch, requests=400):
    """One client that writes one thing after the other: latency, not throughput."""
    log = os.path.join(scratch, "lone.log")
    body = put(b"lone/key", b"x" * 256)
    cpu, wall, _ = measured(server, lambda: finish(
        h2load(server, "KV/Put", body, requests, 1, 1, scratch, log=log), requests, "lone puts"))
    return {"cpuMicros": cpu / requests * 1e6, "perSecond": requests / wall,
            "p50": percentile(log, 0.5), "p99": percentile(log, 0.99)}


def prepare_list(server):
    load(server, b"list/", 10_000, 1024)


def run_list(server, scratch, requests=20):
    body = field(1, b"list/") + field(2, end_of(b"list/"))
    gets = field(1, b"list/00000000")
    log = os.path.join(scratch, "gets.log")
    finish(h2load(server, "KV/Range", gets, 2000, 4, 1, scratch, "get", log=log), 2000, "gets")
    alone = percentile(log, 0.99)
    cpu, wall, _ = measured(server, lambda: finish(
        h2load(server, "KV/Range", body, requests, 2, 1, scratch), requests, "lists"))
    lists = h2load(server, "KV/Range", body, requests, 2, 1, scratch)
    time.sleep(0.05)
    finish(h2load(server, "KV/Range", gets, 200, 2, 1, scratch, "get", log=log), 200, "gets")
    finish(lists, requests, "lists")
    mb = requests * 10_000 * 1024 / 1e6
    return {"cpuMicros": cpu / mb * 1e6, "perSecond": mb / wall, "p99": percentile(log, 0.99),
            "alone": alone, "rssMB": rss_mb(server.pids)}


def prepare_pages(server):
    load(server, b"page/", 100_000, 64)


def run_pages(server, scratch, requests=200):
    body = field(1, b"page/") + field(2, end_of(b"page/")) + field(3, 500)
    log = os.path.join(scratch, "pages.log")
    cpu, wall, _ = measured(server, lambda: finish(
        h2load(server, "KV/Range", body, requests, 2, 1, scratch, log=log), requests, "pages"))
    return {"cpuMicros": cpu / requests * 1e6, "perSecond": requests / wall, "p99": percentile(log, 0.99),
            "rssMB": rss_mb(server.pids)}


def run_limit(server, scratch, requests=200):
    body = field(1, b"page/") + field(2, end_of(b"page/")) + field(3, 1)
    log = os.path.join(scratch, "limit.log")
    cpu, wall, _ = measured(server, lambda: finish(
        h2load(server, "KV/Range", body, requests, 2, 1, scratch, log=log), requests, "limits"))
    return {"cpuMicros": cpu / requests * 1e6, "perSecond": requests / wall, "p99": percentile(log, 0.99)}


class Watchers:
    """`streams` streams with `each` watches; counts events."""

    def __init__(self, server, streams, each, key_of):
        self.seen, self.created, self.lock = 0, 0, threading.Lock()
        self.clients, self.stop = [], threading.Event()
        for s in range(streams):
            client = Client(server, s)
            self.clients.append(client)
            bodies = [field(1, field(1, key_of(s * each + i))) for i in range(each)]
            call = client.channel.stream_stream("/etcdserverpb.Watch/Watch")(self.requests(bodies))
            threading.Thread(target=self.read, args=(call,), daemon=True).start()
        self.wait(lambda: self.created >= streams * each, "watches to be created")

    def requests(self, bodies):
        yield from bodies
        self.stop.wait()

    def read(self, call):
        try:
            for message in call:
                events = created = 0
                for n, value in fields(message):
                    events += n == 11
                    created += n == 3 and value
                with self.lock:
                    self.seen += events
                    self.created += created
        except grpcio.RpcError:
            pass

    def wait(self, condition, what, seconds=120):
        end = time.time() + seconds
        while not condition():
            if time.time() > end:
                raise SystemExit(f"bench: waited {seconds} s for {what}: {self.created} created, {self.seen} events")
            time.sleep(0.002)

    def close(self):
        self.stop.set()
        for client in self.clients:
            client.close()


def run_fan_out(server, scratch, puts=100):
    watchers = Watchers(server, 10, 100, lambda i: b"fan/key")
    client = Client(server)
    time.sleep(0.3)

    def work():
        for i in range(puts):
            client.call("KV/Put", put(b"fan/key", b"x" * 256))
        watchers.wait(lambda: watchers.seen >= puts * 1000, "events")
    cpu, wall, _ = measured(server, work)
    client.close()
    watchers.close()
    return {"cpuMicros": cpu / (puts * 1000) * 1e6, "perSecond": puts * 1000 / wall}


def run_many_watchers(server, scratch, puts=2000):
    watchers = Watchers(server, 10, 1000, lambda i: b"many/%05d" % i)
    memory = rss_mb(server.pids)
    client = Client(server)
    time.sleep(0.3)

    def work():
        for i in range(puts):
            client.call("KV/Put", put(b"many/%05d" % (i * 5), b"x" * 256))
        watchers.wait(lambda: watchers.seen >= puts, "events")
    cpu, wall, _ = measured(server, work)
    client.close()
    watchers.close()
    return {"cpuMicros": cpu / puts * 1e6, "perSecond": puts / wall, "rssMB": memory}


def grant(client, ttl):
    return next(v for n, v in fields(client.call("Lease/LeaseGrant", field(1, ttl))) if n == 2)


def run_keep_alive(server, scratch, requests=10_000):
    client = Client(server)
    body = field(1, grant(client, 3600))
    client.close()
    log = os.path.join(scratch, "alive.log")
    cpu, wall, _ = measured(server, lambda: finish(
        h2load(server, "Lease/LeaseKeepAlive", body, requests, 16, 4, scratch, log=log), requests,
        "keep-alives"))
    return {"cpuMicros": cpu / requests * 1e6, "perSecond": requests / wall, "p99": percentile(log, 0.99)}


def run_revoke(server, scratch, rounds=5):
    client = Client(server)

    def work():
        for _ in range(rounds):
            lease = grant(client, 3600)
            load(server, b"leased/", 1000, 64, lease)
            client.call("Lease/LeaseRevoke", field(1, lease))
    cpu, wall, _ = measured(server, work)
    client.close()
    return {"cpuMicros": cpu / rounds * 1e6, "perSecond": rounds / wall}


def run_memory(server, scratch, count=1_000_000):
    load(server, b"memory/", count, 256)
    watchers = Watchers(server, 10, 1000, lambda i: b"memory/%08d" % i)
    time.sleep(5)
    memory = rss_mb(server.pids)
    watchers.close()
    return {"rssMB": memory}


def run_idle(server, scratch, seconds=10):
    time.sleep(3)
    cpu, wall, _ = measured(server, lambda: time.sleep(seconds))
    return {"cpuMicros": cpu / wall / server.nodes * 1e6, "rssMB": rss_mb(server.pids)}


# name: (what one request is, prepare, run, rounds at most, target for CPU against etcd's)
ROWS = {
    "lone": ("put of a single client", None, run_lone, None, None),
    "list": ("MB; list of 10,000 x 1 KiB", prepare_list, run_list, None, None),
    "pages": ("page of 500 of 100,000 keys, with count", prepare_pages, run_pages, None, None),
    "limit": ("range with limit 1 over 100,000 keys, with count", None, run_limit, None, 1 / 50),
    "fan-out": ("event; 1 put to 1,000 watchers", None, run_fan_out, None, 1 / 5),
    "watchers": ("put seen by 1 of 10,000 watchers", None, run_many_watchers, None, 1 / 5),
    "keep-alive": ("keep-alive", None, run_keep_alive, None, 1 / 4),
    "revoke": ("grant, 1,000 keys, revoke", None, run_revoke, None, 1 / 4),
    "idle": ("second of idleness, a node", None, run_idle, 1, None),
    "memory": ("1 M keys of 256 B, 10,000 watchers", None, run_memory, 1, None),
}
DEFAULT = [name for name in ROWS if name != "memory"]
