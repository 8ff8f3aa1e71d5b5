"""What a client sees of gRPC itself: unknown methods, rubbish, metadata, deadlines."""
from harness import case
from cases.ops import *


@case(gateway=False)
def unknown_methods(t):
    for path in ("/etcdserverpb.KV/Nothing", "/etcdserverpb.Nothing/Range", "/nothing/at/all",
                 "/etcdserverpb.KV", "/etcdserverpb.KV/range"):
        t.raw(path, path, [b""])
    t.get("a")


@case(gateway=False)
def rubbish(t):
    for message in (b"\xff", b"\x0a", b"\x0a\x05ab", b"\x08", b"\x0b", b"\x0a\xff\xff\xff\xff\xff\x01",
                    b"\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"\x00\x00", b"\x07"):
        _, code, _ = t.channel().raw("/etcdserverpb.KV/Range", [message])
        t.record(message.hex(), code)
    t.get("a")


@case(gateway=False)
def unknown_fields(t):
    """Fields of a newer protocol are passed over."""
    t.put("a", "1")
    for more in (b"\xa0\x06\x05", b"\xa2\x06\x03abc", b"\xa5\x06abcd", b"\xa1\x06abcdefgh"):
        t.call("Range", b"\x0a\x01a" + more)
    # A field twice: the last one counts.
    t.call("Range", b"\x0a\x01x\x0a\x01a")
    # A number where bytes belong, in a field that is not known.
    t.call("Put", b"\x0a\x01b\x12\x01v\x98\x06\x01")
    t.get("b")


@case(gateway=False)
def messages_of_a_unary_call(t):
    t.raw("none", "/etcdserverpb.KV/Range", [])
    t.raw("two", "/etcdserverpb.KV/Range", [b"\x0a\x01a", b"\x0a\x01b"])


@case(gateway=False)
def too_large(t):
    for size in (1572864 + 512 * 1024 - 100, 1572864 + 512 * 1024 + 1, 4 * 1024 * 1024 + 1):
        t.call("Range", {"key": "k" * size}, label=f"Range of {size}")
    t.get("a")


@case
def client_api_version(t):
    for version in ("3.5", "3.6", "3", "rubbish", ""):
        t.call("Range", {"key": "a"}, metadata=[("client-api-version", version)])


@case
def unknown_metadata(t):
    t.call("Range", {"key": "a"}, metadata=[("some-thing", "x"), ("hasleader", "false"),
                                            ("hasleader", "rubbish")])
