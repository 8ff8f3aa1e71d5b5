"""HTTP/2 and gRPC by hand: a client that may do what no library does."""
import socket, struct, time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, END_HEADERS, ACK = 1, 4, 1
WIDEST = 0x7FFFFFFF


def frame(kind, flags=0, stream=0, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def number(value, prefix_bits, first=0):
    most = (1 << prefix_bits) - 1
    if value < most:
        return bytes((first | value,))
    out, value = [first | most], value - most
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out + [value])


def text(value):
    value = value.encode() if isinstance(value, str) else value
    return number(len(value), 7) + value


def field(name, value):
    """A literal that no table remembers."""
    return b"\0" + text(name) + text(value)


def block(path, extra=b"", content_type="application/grpc"):
    """POST of `path`; all names but `te` are in HPACK's static table."""
    return (b"\x83\x86" + b"\x04" + text(path) + b"\x01" + text("localhost") + b"\x0f\x10"
            + text(content_type) + field("te", "trailers") + extra)


def message(body):
    return struct.pack(">BI", 0, len(body)) + body


def varint(value):
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out + bytes((value,)))


def blob(field_number, value):
    return varint(field_number << 3 | 2) + varint(len(value)) + value


def put_request(key, value):
    return blob(1, key) + blob(2, value)


def range_request(key, end=b"", limit=0):
    return blob(1, key) + (blob(2, end) if end else b"") + (b"\x18" + varint(limit) if limit else b"")


def watch_request(key, end=b""):
    return blob(1, blob(1, key) + (blob(2, end) if end else b""))


PUT, RANGE = "/etcdserverpb.KV/Put", "/etcdserverpb.KV/Range"
WATCH, KEEP_ALIVE = "/etcdserverpb.Watch/Watch", "/etcdserverpb.Lease/LeaseKeepAlive"


class Gone(Exception):
    pass


class Connection:
    def __init__(self, address, window=65535, timeout=10, receive_buffer=None):
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(timeout)
        self.socket.connect(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer, self.next_stream, self.unacknowledged = b"", 1, 0
        self.headers = {}
        settings = struct.pack(">HI", 4, window)
        grown = frame(WINDOW, 0, 0, struct.pack(">I", WIDEST - 65535)) if window > 65535 else b""
        self.send(PREFACE + frame(SETTINGS, 0, 0, settings) + grown)

    def send(self, data):
        try:
            self.socket.sendall(data)
        except (OSError, ValueError) as error:
            raise Gone(str(error)) from error

    def open(self, path, body=b"", ends=True, extra=b""):
        """The bytes of one call; its stream's number."""
        stream, self.next_stream = self.next_stream, self.next_stream + 2
        out = frame(HEADERS, END_HEADERS, stream, block(path, extra))
        pieces = [body[i:i + 16384] for i in range(0, len(body), 16384)] or ([b""] if ends else [])
        for i, piece in enumerate(pieces):
            out += frame(DATA, END_STREAM if ends and i == len(pieces) - 1 else 0, stream, piece)
        return stream, out

    def read_frame(self):
        while len(self.buffer) < 9 or len(self.buffer) < 9 + int.from_bytes(self.buffer[:3], "big"):
            try:
                more = self.socket.recv(1 << 18)
            except OSError as error:
                raise Gone(str(error)) from error
            if not more:
                raise Gone("closed")
            self.buffer += more
        length = int.from_bytes(self.buffer[:3], "big")
        kind, flags = self.buffer[3], self.buffer[4]
        stream = int.from_bytes(self.buffer[5:9], "big") & WIDEST
        payload, self.buffer = self.buffer[9:9 + length], self.buffer[9 + length:]
        return kind, flags, stream, payload

    def call(self, path, body):
        """One call, alone; its messages' bytes."""
        stream, out = self.open(path, message(body))
        self.send(out)
        data = b""
        while True:
            kind, flags, about, payload = self.read_frame()
            if kind == SETTINGS and not flags & ACK:
                self.send(frame(SETTINGS, ACK))
            elif kind == PING and not flags & ACK:
                self.send(frame(PING, ACK, 0, payload))
            elif kind == GOAWAY:
                raise Gone(f"GOAWAY {int.from_bytes(payload[4:8], 'big')} {payload[8:]!r}")
            elif kind == RST and about == stream:
                raise Gone(f"reset {int.from_bytes(payload, 'big')}")
            elif kind == DATA and about == stream:
                data += payload
                self.unacknowledged += len(payload)
                if self.unacknowledged > 16384:
                    update = struct.pack(">I", self.unacknowledged)
                    self.send(frame(WINDOW, 0, 0, update))
                    self.unacknowledged = 0
            elif kind == HEADERS and about == stream and flags & END_STREAM:
                # A status that is not 0 comes with other bytes; what is asked here has no errors.
                if b"grpc-status" in payload and not data:
                    raise Gone("an error")
                return data

    def close(self):
        self.socket.close()


def drain(connection, seconds, bytes_a_second=None):
    """Reads what comes, quickly or slowly; the bytes, and whether the server has ended it."""
    total, end = 0, time.time() + seconds
    connection.socket.settimeout(0.2)
    while time.time() < end:
        try:
            more = connection.socket.recv(bytes_a_second or 1 << 16)
        except socket.timeout:
            continue
        except OSError:
            return total, True
        if not more:
            return total, True
        total += len(more)
        if bytes_a_second:
            time.sleep(1)
    return total, False
