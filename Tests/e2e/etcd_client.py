"""A small etcd client for tests: the calls that faults.py needs, over grpcio, nothing generated.

etcdctl starts a process for each call; here one connection carries hundreds of calls a second, and a
call's deadline and error are plain to see.
"""
import threading

try:
    import grpc
except ImportError:
    grpc = None

VARINT, BYTES = 0, 2


def _varint(number):
    out = bytearray()
    number &= (1 << 64) - 1
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def encode(**fields):
    """encode(_1=b"key", _3=7): field numbers with bytes, text, numbers or booleans."""
    out = b""
    for name, value in fields.items():
        number = int(name[1:])
        if isinstance(value, str):
            value = value.encode()
        if isinstance(value, bytes):
            out += _varint(number << 3 | BYTES) + _varint(len(value)) + value
        elif value:
            out += _varint(number << 3 | VARINT) + _varint(int(value))
    return out


def decode(message):
    """{field number: [values]}"""
    fields, at = {}, 0

    def varint():
        nonlocal at
        number = shift = 0
        while True:
            byte = message[at]
            at += 1
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return number
            shift += 7

    while at < len(message):
        tag = varint()
        if tag & 7 == VARINT:
            value = varint()
        elif tag & 7 == BYTES:
            size = varint()
            value = message[at:at + size]
            at += size
        else:
            raise ValueError(f"wire type {tag & 7}")
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def one(fields, number, default=0):
    return fields[number][-1] if number in fields else default


class KeyValue:
    def __init__(self, message):
        f = decode(message)
        self.key, self.value = one(f, 1, b"").decode(), one(f, 5, b"")
        try:
            self.value = self.value.decode()
        except UnicodeDecodeError:
            pass
        self.created, self.modified = one(f, 2), one(f, 3)
        self.version, self.lease = one(f, 4), one(f, 6)


class CallFailed(Exception):
    def __init__(self, code, details):
        super().__init__(f"{code}: {details}")
        self.code, self.details = code, details


class Client:
    """Of one endpoint. Thread-safe, as gRPC's channels are."""

    def __init__(self, url, tls):
        address = url.split("://")[1]
        options = [
            ("grpc.initial_reconnect_backoff_ms", 50), ("grpc.min_reconnect_backoff_ms", 300),
            ("grpc.max_reconnect_backoff_ms", 200), ("grpc.max_receive_message_length", -1),
            # Or all channels to one address share one connection.
            ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0),
        ]
        if tls:
            read = lambda name: open(tls[name], "rb").read()
            credentials = grpc.ssl_channel_credentials(read("ca"), read("key"), read("cert"))
            self.channel = grpc.secure_channel(address, credentials, options)
        else:
            self.channel = grpc.insecure_channel(address, options)
        self.url, self.methods, self.lock = url, {}, threading.Lock()

    def close(self):
        self.channel.close()

    def call(self, method, message, timeout=5.0):
        with self.lock:
            function = self.methods.get(method)
            if not function:
                function = self.methods[method] = self.channel.unary_unary(method)
        try:
            return decode(function(message, timeout=timeout))
        except grpc.RpcError as error:
            raise CallFailed(error.code().name, error.details()) from None
        except ValueError as error:  # A closed channel.
            raise CallFailed("CLOSED", str(error)) from None

    def put(self, key, value, timeout=5.0):
        """Answers with the revision."""
        f = self.call("/etcdserverpb.KV/Put", encode(_1=key, _2=value), timeout)
        return one(decode(one(f, 1, b"")), 3)

    def range(self, key, end="", revision=0, serializable=False, timeout=5.0):
        """Answers with the header's revision and the pairs."""
        f = self.call(
            "/etcdserverpb.KV/Range",
            encode(_1=key, _2=end, _4=revision, _7=serializable), timeout)
        return one(decode(one(f, 1, b"")), 3), [KeyValue(kv) for kv in f.get(2, [])]

    def compact(self, revision, timeout=5.0):
        self.call("/etcdserverpb.KV/Compact", encode(_1=revision), timeout)

    def hash_kv(self, revision, timeout=5.0):
        f = self.call("/etcdserverpb.Maintenance/HashKV", encode(_1=revision), timeout)
        return one(f, 2), one(f, 3)

    def watch(self, key, end, revision, stopped):
        """Yields (revision of the header, events) until `stopped`; an event is (type, KeyValue)."""
        function = self.channel.stream_stream("/etcdserverpb.Watch/Watch")
        wake = threading.Event()

        def requests():
            yield encode(_1=encode(_1=key, _2=end, _3=revision))
            while not (stopped.is_set() or wake.is_set()):
                wake.wait(0.2)

        call = function(requests())
        try:
            for message in call:
                f = decode(message)
                if one(f, 4):
                    raise CallFailed("CANCELLED", one(f, 6, b"").decode() or f"compacted {one(f, 5)}")
                events = []
                for event in f.get(11, []):
                    e = decode(event)
                    events.append((one(e, 1), KeyValue(one(e, 2, b""))))
                yield one(decode(one(f, 1, b"")), 3), events
                if stopped.is_set():
                    return
        except grpc.RpcError as error:
            raise CallFailed(error.code().name, error.details()) from None
        finally:
            wake.set()
            call.cancel()
