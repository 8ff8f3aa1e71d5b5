"""Range, Put, DeleteRange, Compact."""
from harness import ANY, add, case
from cases.ops import *


@case
def put_and_get(t):
    t.get("a")
    t.put("a", "1")
    t.get("a")
    t.put("a", "2")
    t.get("a")
    t.put("b", b"\x00\xff\xfe binary")
    t.get("b")
    t.put("c")
    t.get("c")


@case
def put_options(t):
    t.put("a", "1", prev_kv=True)
    t.put("a", "2", prev_kv=True)
    t.put("a", "", ignore_value=True, prev_kv=True)
    t.get("a")
    t.put("a", "3", ignore_lease=True)
    t.put("a", "", ignore_value=True, ignore_lease=True)
    t.get("a")


@case
def put_errors(t):
    t.put("", "x")
    t.put("a", "", ignore_value=True)
    t.put("a", "x", ignore_value=True)
    t.put("a", "x", ignore_lease=True)
    t.put("a", "", ignore_lease=True, lease=5)
    t.put("a", "x", lease=987654321)
    t.put("a", "x", lease=-1)
    t.put("", "x", ignore_value=True, ignore_lease=True, lease=3)
    t.get("a")


@case
def put_with_lease(t):
    lease = t.grant(60)
    t.put("a", "1", lease=lease)
    t.get("a")
    t.put("a", "2", ignore_lease=True)
    t.get("a")
    t.put("a", "", ignore_value=True)
    t.get("a")
    t.put("a", "3", lease=lease, ignore_value=False)
    t.put("a", "", lease=lease, ignore_value=True)
    t.get("a")
    t.call("LeaseTimeToLive", {"ID": lease, "keys": True})


@case(gateway=False)
def put_large(t):
    value = "x" * (1024 * 1024)
    t.put("a", value)
    t.get("a", count_only=True)
    for size in (1572864 - 200, 1572864 - 40, 1572864 - 16, 1572864 - 7, 1572864, 1572864 + 100000,
                 2097152 - 20, 2097152, 3000000):
        t.put("b", "x" * size)
    t.get("b", keys_only=True)


@case
def put_empty_and_long_keys(t):
    t.put(b"\0", "zero")
    t.put(b"\xff" * 30, "high")
    t.put("k" * 5000, "long")
    t.get(*ALL, keys_only=True)


def keys(t):
    t.fill("a", "b", "ba", "bb", "c", "d")
    t.fill("b", "d", prefix="second ")


def ranges(name, *requests, before=keys, essential=True):
    def run(t):
        before(t)
        for request in requests:
            t.call("Range", request(t) if callable(request) else request)
    add("kv." + name, run, essential)


ranges("range_ends",
       {"key": "b"}, {"key": "b", "range_end": "c"}, {"key": "b", "range_end": "b"},
       {"key": "c", "range_end": "b"}, {"key": "b", "range_end": b"\0"},
       {"key": b"\0", "range_end": b"\0"}, {"key": b"\0", "range_end": "b"},
       {"key": "e", "range_end": b"\0"}, {"key": "", "range_end": ""},
       {"key": "", "range_end": "c"}, {"key": "", "range_end": b"\0"}, {"key": "b", "range_end": "b\0"},
       {"key": "b", "range_end": b"\0\0"}, {"key": "b", "range_end": b"\0\x01"})
ranges("range_limits", *[{"key": "a", "range_end": "z", "limit": n}
                         for n in (0, 1, 3, 5, 6, 7, -1, 2 ** 62, -2 ** 63)],
       {"key": "b", "limit": 1}, {"key": "x", "limit": 1})
ranges("range_count_only", *[{"key": "a", "range_end": "z", "count_only": True, **more} for more in (
    {}, {"limit": 2}, {"keys_only": True}, {"sort_order": 2, "sort_target": 1},
    {"min_mod_revision": 1}, {"serializable": True})], {"key": "zz", "count_only": True})
ranges("range_keys_only", *[{"key": "a", "range_end": "z", "keys_only": True, **more} for more in (
    {}, {"limit": 2}, {"sort_order": 2}, {"sort_order": 2, "sort_target": 4})],
    {"key": "b", "keys_only": True})
for order in range(3):
    for target in range(5):
        ranges(f"range_sort_order_{order}_target_{target}",
               *[{"key": "a", "range_end": "z", "sort_order": order, "sort_target": target, **more}
                 for more in ({}, {"limit": 3}, {"limit": 2, "keys_only": True})])
ranges("range_sort_of_equals",
       *[{"key": "a", "range_end": "z", "sort_order": order, "sort_target": target}
         for order in (1, 2) for target in (1, 4)],
       before=lambda t: [t.call("Put", {"key": k, "value": v}, quiet=True)
                         for k, v in zip("fedcba", "112211")])


def many(t):
    """More than one piece of a list, and nothing that is equal: what etcd sorts is in no order of its own then."""
    for i in range(1300):
        t.call("Put", {"key": f"m{i * 577 % 1300:04}", "value": f"{i * 7919 % 10007:05}"}, quiet=True)


ranges("range_sorted_in_pieces",
       *[{"key": "m", "range_end": "n", "sort_order": order, "sort_target": target, **more}
         for order, target in ((2, 0), (1, 2), (2, 3), (1, 4), (2, 4), (0, 3))
         for more in ({"keys_only": True}, {"limit": 3}, {"limit": 1250, "keys_only": True})],
       *[lambda t, n=n: {"key": "m", "range_end": "n", "min_mod_revision": t.r + 40,
                         "max_create_revision": t.r + 1290, "keys_only": True, **n}
         for n in ({}, {"limit": 5}, {"sort_order": 2}, {"sort_order": 2, "sort_target": 4, "limit": 1100})],
       before=many, essential=False)


def _sort_unknown():
    """etcd dies of unknown targets before 3.6; since then it refuses them."""
    def run(t):
        for order, target in ((3, 0), (0, 5), (7, 7), (-1, 0), (1, -1), (1, 5), (3, 1)):
            t.get("a", "z", sort_order=order, sort_target=target)
            t.txn([], [G("a", "z", sort_order=order, sort_target=target)])
        t.get("", sort_order=9)
    refused = {"error": "INVALID_ARGUMENT", "text": "etcdserver: invalid sort option"}
    empty = {"error": "INVALID_ARGUMENT", "text": "etcdserver: key is not provided"}
    add("kv.range_sort_unknown", run,
        expected=[("Range", refused), ("Txn", refused)] * 7 + [("Range", empty)])


_sort_unknown()
ranges("range_revisions",
       *[lambda t, n=n: {"key": "b", "revision": t.r + n} for n in range(1, 10)],
       *[lambda t, n=n: {"key": "a", "range_end": "z", "revision": t.r + n} for n in range(1, 10)],
       *[lambda t, n=n: {"key": "b", "revision": n} for n in (-1, -2 ** 63, 2 ** 63 - 1)],
       lambda t: {"key": "b", "revision": t.r + 9, "count_only": True},
       lambda t: {"key": "a", "range_end": "z", "revision": t.r + 3, "count_only": True},
       lambda t: {"key": "", "revision": t.r + 100},
       lambda t: {"key": "b", "range_end": "a", "revision": t.r + 100})
for field in ("min_mod_revision", "max_mod_revision", "min_create_revision", "max_create_revision"):
    ranges(f"range_{field}",
           *[lambda t, n=n, f=field: {"key": "a", "range_end": "z", f: t.r + n} for n in range(0, 10)],
           *[lambda t, f=field: {"key": "a", "range_end": "z", f: t.r + 4, "limit": 1},
             lambda t, f=field: {"key": "a", "range_end": "z", f: t.r + 4, "limit": 2, "sort_order": 2},
             lambda t, f=field: {"key": "a", "range_end": "z", f: t.r + 4, "count_only": True},
             lambda t, f=field: {"key": "a", "range_end": "z", f: t.r + 4, "keys_only": True,
                                 "revision": t.r + 6},
             lambda t, f=field: {"key": "b", f: t.r + 4}, lambda t, f=field: {"key": "b", f: -5}])
ranges("range_two_filters",
       lambda t: {"key": "a", "range_end": "z", "min_mod_revision": t.r + 2,
                  "max_mod_revision": t.r + 7},
       lambda t: {"key": "a", "range_end": "z", "min_mod_revision": t.r + 7,
                  "max_mod_revision": t.r + 2},
       lambda t: {"key": "a", "range_end": "z", "min_mod_revision": t.r + 7, "limit": 1,
                  "max_create_revision": t.r + 3, "sort_order": 2, "sort_target": 3})


@case(spread=False)
def range_serializable(t):
    keys(t)
    t.get("a", "z", serializable=True)
    t.get("b", serializable=True, revision=t.r + 2)
    t.get("b", serializable=True, revision=t.r + 200)
    t.get("", serializable=True)


@case
def range_pages(t):
    t.fill(*[f"k{i:03}" for i in range(40)])
    pinned, start = t.r + 40, "k"
    while True:
        answer = t.get(start, "l", limit=7, revision=pinned)
        if not answer or not answer.get("more"):
            break
        start = answer["kvs"][-1]["key"] + "\0"
        t.put("k" + answer["kvs"][-1]["key"][1:] + "x", "in between")
        t.delete("k000")


@case
def delete(t):
    keys(t)
    t.delete("nothing")
    t.delete("a")
    t.delete("a")
    t.delete("b", "c", prev_kv=True)
    t.get("a", "z")
    t.delete("c", prev_kv=True)
    t.delete("d", b"\0")
    t.delete(*ALL, prev_kv=True)
    t.get(*ALL)


@case
def delete_odd_ranges(t):
    keys(t)
    t.delete("")
    t.delete("", "c")
    t.delete("c", "b")
    t.delete("b", "b")
    t.delete("", b"\0")
    t.get(*ALL, keys_only=True)


@case
def delete_and_put_again(t):
    t.put("a", "1")
    t.put("a", "2")
    t.delete("a")
    t.get("a")
    t.put("a", "3", prev_kv=True)
    t.get("a")
    for n in range(1, 5):
        t.get("a", revision=t.r + n)


@case
def delete_takes_the_key_from_its_lease(t):
    lease = t.grant()
    t.put("a", "1", lease=lease)
    t.put("b", "1", lease=lease)
    t.delete("a")
    t.call("LeaseTimeToLive", {"ID": lease, "keys": True})
    t.put("b", "2")
    t.call("LeaseTimeToLive", {"ID": lease, "keys": True})
    t.call("LeaseRevoke", {"ID": lease})
    t.get(*ALL)


@case
def compact(t):
    keys(t)
    t.compact(t.r + 4)
    t.get("b", revision=t.r + 2)
    t.get("b", revision=t.r + 3)
    t.get("b", revision=t.r + 4)
    t.get("b", revision=t.r + 5)
    t.get("a", "z", revision=t.r + 3)
    t.get("a", "z", revision=t.r + 4)
    t.get("", revision=t.r + 3)
    t.compact(t.r + 4)
    t.compact(t.r + 3)
    t.compact(t.r + 100)
    t.compact(t.r + 8, physical=True)
    t.get("a", "z", revision=t.r + 7)
    t.get("a", "z", revision=t.r + 8)
    t.get("a", "z")


@case
def compact_odd_revisions(t):
    t.put("a", "1")
    t.compact(0)
    t.compact(-1)
    t.compact(-2 ** 63)
    t.compact(2 ** 63 - 1)
    t.compact(1, physical=True)
    t.put("a", "2")
    t.get("a", revision=t.r + 1)


@case
def compact_keeps_what_is_current(t):
    t.put("a", "1")
    t.put("b", "1")
    t.delete("a")
    t.put("b", "2")
    t.compact(t.r + 3)
    t.get("a", revision=t.r + 3)
    t.get("b", revision=t.r + 3)
    t.delete("b", prev_kv=True)
    t.compact(t.r + 5)
    t.get(*ALL, revision=t.r + 5)
    t.get(*ALL)


@case
def count_after_deletions_at_a_revision(t):
    keys(t)
    t.delete("b", "c")
    t.get("a", "z", count_only=True)
    t.get("a", "z", count_only=True, revision=t.r + 8)
    t.get("a", "z", limit=1, revision=t.r + 8)


HEADER = {"cluster_id": ANY, "member_id": ANY, "raft_term": ANY}


def range_stream(t):
    """As of etcd 3.7."""
    t.fill(*[f"k{i:02}" for i in range(35)])
    for more in ({}, {"limit": 12}, {"count_only": True}, {"revision": t.r + 15}, {"key": "x"},
                 {"sort_order": 2}, {"min_mod_revision": 1}, {"revision": t.r + 100}):
        stream = t.stream("RangeStream")
        stream.send({"key": "k", "range_end": "l", "keys_only": True, **more})
        stream.half_close()
        parts, rows = [], 0
        while isinstance(part := stream.next(), dict):
            part = part["range_response"]
            rows += len(part.pop("kvs", []))
            parts.append(part)
        t.record("rows", rows)
        t.record("last", parts[-1] if parts else {})
        t.record("others are rows only", all(not part for part in parts[:-1]))
        t.record("end", {"code": part.code, "text": part.details})


def _parts(rows, revision, count=0, more=False, error=("OK", "")):
    last = {} if error[0] != "OK" else {"header": {**HEADER, "revision": revision}}
    if count:
        last["count"] = count
    if more:
        last["more"] = True
    return [("rows", rows), ("last", last), ("others are rows only", True),
            ("end", {"code": error[0], "text": error[1]})]


add("kv.range_stream", range_stream, gateway=False, expected=[
    *_parts(35, "r+35", 35), *_parts(12, "r+35", 35, True), *_parts(0, "r+35", 35),
    *_parts(15, "r+35", 15), *_parts(0, "r+35"),
    *_parts(0, "", error=("UNIMPLEMENTED", "RangeStream does not support custom sort orders")),
    *_parts(0, "", error=("UNIMPLEMENTED", "RangeStream does not support revision filters")),
    *_parts(0, "", error=(
        "OUT_OF_RANGE", "etcdserver: mvcc: required revision is a future revision"))])
