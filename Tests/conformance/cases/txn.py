"""Txn: compares, branches, nesting, duplicate keys, limits."""
import itertools

from harness import add, case
from cases.ops import *


# Without operations it is serializable: another node may not be as far yet.
@case(spread=False)
def branches(t):
    t.txn([], [P("a", "1")], [P("a", "2")])
    t.txn([C("a", "VALUE", "=", "1")], [P("a", "3"), G("a")], [G("a")])
    t.txn([C("a", "VALUE", "=", "1")], [P("a", "4")], [G("a"), D("a", prev_kv=True), G("a")])
    t.txn([NO], [P("a", "5")])
    t.txn([YES])
    t.txn()
    t.get("a")


def compares(target, operands):
    def run(t):
        lease = t.grant(60, 4711)
        t.fill("a", "b", "b")
        t.call("Put", {"key": "c", "value": "v1", "lease": lease}, quiet=True)
        for key, relation, operand in itertools.product(("a", "b", "c", "none"), "= > < !=".split(),
                                                        operands):
            if callable(operand):
                operand = operand(t)
            t.txn([C(key, target, relation, operand)], [G("a", count_only=True)], [])
    add(f"txn.compare_{target.lower()}", run)


compares("VERSION", (0, 1, 2, -1))
compares("CREATE", (0, lambda t: t.r + 1, lambda t: t.r + 2, lambda t: t.r + 9))
compares("MOD", (0, lambda t: t.r + 2, lambda t: t.r + 3, lambda t: t.r + 9))
compares("VALUE", ("", "v0", "v1", "z"))
compares("LEASE", (0, 4711, 5000))


# A transaction that does nothing is serializable for etcd: another node may not have the keys yet.
@case(spread=False)
def compare_ranges(t):
    t.fill("a", "b", "c")
    for end in ("z", b"\0", "b", "a"):
        for relation in ("=", ">", "<", "!="):
            t.txn([C("a", "VERSION", relation, 1, end=end)], [], [])
            t.txn([C("a", "VALUE", relation, "v1", end=end)], [], [])
            t.txn([C("a", "MOD", relation, t.r + 2, end=end)], [], [])
    t.txn([C("x", "VERSION", "=", 0, end="z")], [], [])
    t.txn([C("x", "VALUE", "=", "", end="z")], [], [])
    t.txn([C("x", "VALUE", "!=", "", end="z")], [], [])
    t.txn([C("z", "VERSION", "=", 0, end="a")], [], [])
    t.txn([C("", "VERSION", "=", 0, end="z")], [], [])


@case
def compare_odd(t):
    t.fill("a")
    for compare in (
            {"key": "a"}, {"key": "none"}, {}, {"key": "a", "target": 9}, {"key": "a", "result": 9},
            {"key": "none", "target": 9}, {"key": "a", "target": 9, "result": 1},
            {"key": "a", "target": 9, "result": 2}, {"key": "a", "target": 9, "result": 3},
            {"key": "a", "target": 0, "result": 9, "version": 1}, {"key": "a", "target": -1},
            {"key": "a", "result": -1},
            # The operand of another target.
            {"key": "a", "target": "MOD", "version": 1}, {"key": "none", "target": "MOD", "version": 1},
            {"key": "a", "target": "VALUE", "version": 1}, {"key": "a", "target": "VALUE"},
            {"key": "a", "target": "VALUE", "result": "NOT_EQUAL"},
            {"key": "a", "target": "VERSION", "value": "v0"},
            {"key": "a", "target": "LEASE", "version": 3}, {"key": "a", "target": "CREATE", "lease": 1}):
        t.txn([compare], [P("yes", "1")], [G("a")])


@case
def several_compares(t):
    t.fill("a", "b")
    t.txn([C("a", "VERSION", "=", 1), C("b", "VERSION", "=", 1)], [P("c", "1")], [])
    t.txn([C("a", "VERSION", "=", 1), C("b", "VERSION", "=", 2)], [], [P("d", "1")])
    t.txn([C("a", "VERSION", "=", 1), {"target": 3}], [], [])
    t.get(*ALL)


@case
def reads_see_the_writes_before_them(t):
    t.fill("a", "b")
    t.txn([], [G("a"), P("a", "new"), G("a"), D("b"), G("b"), G("a", "z"), P("c", "x"), G("a", "z"),
               G("a", "z", count_only=True), G("a", "z", limit=1), G("a", revision=t.r + 1)])
    t.get("a", "z")


@case
def options_inside(t):
    t.fill("a", "b", "c")
    t.txn([], [P("a", "2", prev_kv=True), P("b", "", ignore_value=True), D("c", prev_kv=True),
               G("a", "z", sort_order=2, sort_target=4, limit=1, keys_only=True)])
    t.txn([], [P("b", "5", ignore_lease=True), P("new", "", prev_kv=True), D("none", prev_kv=True)])
    t.get("a", "z")


@case
def one_revision(t):
    t.txn([], [P(f"k{i}", str(i)) for i in range(5)])
    t.get("k", "l")
    t.txn([], [D("k0"), D("k1", "k3"), P("k4", "again")])
    t.get("k", "l")
    t.get("k", "l", revision=t.r + 1)


@case
def reads_and_empty_writes_take_no_revision(t):
    t.txn([], [G("a")])
    t.txn([], [D("a")])
    t.txn([NO], [P("a", "1")], [])
    t.txn([], [D("a"), D("b", "c"), G("x")])
    t.put("a", "1")


@case(nodes=1)
def historic_reads(t):
    t.fill("a", "a", "a")
    t.txn([], [G("a", revision=t.r + 1), G("a", revision=t.r + 2), G("a")])
    t.txn([], [P("b", "1"), G("a", revision=t.r + 1), G("b", revision=t.r + 3)])
    t.txn([], [G("a", revision=t.r + 100)])
    t.txn([], [P("c", "1"), G("a", revision=t.r + 100)])
    t.txn([], [P("c", "1"), G("c", revision=t.r + 5)])
    t.compact(t.r + 3)
    t.txn([], [G("a", revision=t.r + 1)])
    t.txn([], [P("d", "1"), G("a", revision=t.r + 1)])
    t.txn([NO], [P("d", "1"), G("a", revision=t.r + 1)], [G("a")])
    t.get(*ALL)


@case
def nested(t):
    t.fill("a")
    t.txn([], [T([C("a", "VERSION", "=", 1)], [P("b", "1"), G("b")], [P("c", "1")])])
    t.txn([], [P("a", "2"), T([C("a", "VERSION", "=", 2)], [P("d", "1")], [P("e", "1")]), G("a", "z")])
    t.txn([NO], [], [T([], [T([], [P("deep", "1"), G("deep")])], []), G("deep")])
    t.txn([], [T([NO], [T([], [P("x", "1")])], [T([YES], [G("a")], [])]), T(), T([NO])])
    t.get(*ALL)


@case
def nested_compares_see_the_state_before(t):
    t.txn([], [P("a", "1"), T([C("a", "CREATE", "=", 0)], [P("b", "unseen")], [P("b", "seen")])])
    t.txn([], [D("a"), T([C("a", "CREATE", ">", 0)], [P("c", "unseen")], [P("c", "seen")])])
    t.get(*ALL)


DUPLICATES = {
    "put_put": [P("a", "1"), P("a", "2")],
    "put_other_put": [P("a", "1"), P("b", "2")],
    "put_delete": [P("a", "1"), D("a")],
    "delete_put": [D("a"), P("a", "1")],
    "delete_range_put": [D("a", "c"), P("b", "1")],
    "delete_range_put_at_its_end": [D("a", "b"), P("b", "1")],
    "delete_from_key_put_under_it": [D("b", b"\0"), P("a", "1")],
    "delete_from_key_put_at_it": [D("b", b"\0"), P("b", "1")],
    "delete_from_key_put_above_it": [D("b", b"\0"), P("c", "1")],
    "delete_all_put": [D(b"\0", b"\0"), P("c", "1")],
    "delete_reversed_put": [D("c", "a"), P("b", "1")],
    "delete_reversed_put_at_its_start": [D("c", "a"), P("c", "1")],
    "delete_delete": [D("a"), D("a")],
    "delete_overlapping": [D("a", "c"), D("b", "d")],
    "put_range": [P("a", "1"), G("a")],
    "nested_put_put": [P("a", "1"), T([], [P("a", "2")])],
    "nested_both_arms": [T([YES], [P("a", "1")], [P("a", "2")])],
    "nested_both_arms_and_outside": [T([YES], [P("a", "1")], [P("a", "2")]), P("a", "3")],
    "nested_arm_not_taken": [T([YES], [], [P("a", "2")]), P("a", "3")],
    "two_nested": [T([], [P("a", "1")]), T([], [P("a", "2")])],
    "two_nested_exclusive": [T([YES], [P("a", "1")]), T([YES], [], [P("a", "2")])],
    "nested_delete_put": [T([], [D("a", "c")]), P("b", "1")],
    "nested_delete_from_key_put": [T([], [D("a", b"\0")]), P("b", "1")],
    "nested_put_delete": [T([], [P("b", "1")]), D("a", "c")],
    "nested_put_delete_in_other_arm": [T([YES], [P("b", "1")], [D("a", "c")])],
    "nested_put_and_delete_in_two": [T([], [P("b", "1")]), T([], [D("a", "c")])],
    "nested_delete_and_put_in_two": [T([], [D("a", "c")]), T([], [P("b", "1")])],
    "nested_inside_twice": [T([], [P("b", "1"), P("b", "2")])],
    "nested_inside_twice_not_taken": [T([NO], [P("b", "1"), P("b", "2")])],
    "three_deep": [T([], [T([], [P("a", "1")])]), P("a", "1")],
    "three_deep_arms": [T([YES], [T([YES], [P("a", "1")], [P("a", "2")])], [P("a", "1")])],
    "empty_delete_end": [D("a", "a"), P("a", "1")],
}
for name, operations in DUPLICATES.items():
    def run(t, operations=operations):
        t.fill("a", "b", "c")
        t.txn([], operations)
        t.txn([YES], [G("a")], operations)
        t.get(*ALL)
    add("txn.twice_" + name, run)


@case(nodes=1)
def put_errors_inside(t):
    for operation in (
            P(""), P("a", "x", ignore_value=True), P("a", "", ignore_value=True),
            P("a", "", ignore_lease=True, lease=3), P("a", "1", lease=999), G(""), D(""), {}, T([{}]),
            G("", "z"), G("a", revision=-1),
            T([], [P("")]), T([], [], [P("")]), T([], [{}])):
        t.txn([], [P("ok", "1"), operation])
        t.txn([NO], [operation])
        t.txn([NO], [P("ok", "1")], [operation, P("ok2", "2")])
    t.get(*ALL)


@case
def order_of_errors(t):
    many = [P(f"k{i}") for i in range(129)]
    t.txn([{}], [P("")], [P("a"), P("a")])
    t.txn([{}], many, [P("")])
    t.txn([], [P("")], [P("a"), P("a")])
    t.txn([], [P("a"), P("a")], [P("")])
    t.txn([], [P("a"), P("a"), P("")])
    t.txn([], [P("a", "1", lease=77), P("a", "2")])
    t.txn([], [P("a", "1", lease=77), P("b", "", ignore_value=True)])
    t.txn([], [P("b", "", ignore_value=True), P("a", "1", lease=77)])
    t.txn([], [P("a", "1", lease=77), G("a", revision=t.r + 1000)])
    t.txn([], [G("a", revision=t.r + 1000), P("a", "1", lease=77)])


@case
def limits(t):
    for count in (127, 128, 129):
        t.txn([YES] * count, [])
        t.txn([], [G("a", count_only=True)] * count)
        t.txn([NO], [], [G("a", count_only=True)] * count)
    t.txn([], [P(f"k{i}") for i in range(128)])
    t.txn([], [P(f"k{i}") for i in range(129)])
    t.get("k", "l", count_only=True)


@case
def limits_of_nesting(t):
    def deep(levels, inside):
        operation = inside
        for _ in range(levels):
            operation = T([], [operation])
        return operation
    for levels in (1, 2, 10, 30, 60):
        t.txn([], [deep(levels, G("a"))])
    t.txn([], [T([], [G("a", count_only=True)] * 127)])
    t.txn([], [T([], [G("a", count_only=True)] * 128)])
    t.txn([], [G("a", count_only=True)] * 100 + [T([], [G("a", count_only=True)] * 27)])
    t.txn([], [G("a", count_only=True)] * 100 + [T([], [G("a", count_only=True)] * 28)])
    t.txn([YES] * 100, [T([YES] * 28)])
    t.txn([YES] * 100, [T([YES] * 29)])


@case(gateway=False)
def large(t):
    t.txn([], [P(f"k{i}", "x" * 100_000) for i in range(15)])
    t.txn([], [P(f"k{i}", "x" * 100_000) for i in range(16)])
    t.txn([C("a", "VALUE", "=", "x" * 1_500_000)], [G("a")], [G("b")])
    t.txn([C("a", "VALUE", "=", "x" * 1_600_000)], [G("a")], [G("b")])
    t.txn([C("a", "VALUE", "=", "x" * 1_600_000)], [P("a")], [G("b")])
    t.get("k", "l", keys_only=True)


@case
def leases_inside(t):
    lease = t.grant()
    t.txn([], [P("a", "1", lease=lease), P("b", "1", lease=lease)])
    t.call("LeaseTimeToLive", {"ID": lease, "keys": True})
    t.txn([C("a", "LEASE", "=", lease)], [P("a", "2"), P("b", "2", ignore_lease=True)], [G("a")])
    t.call("LeaseTimeToLive", {"ID": lease, "keys": True})
    t.call("LeaseRevoke", {"ID": lease})
    t.get(*ALL)
    t.txn([], [P("a", "1", lease=lease)])


@case
def kubernetes(t):
    """The five transactions of a kube-apiserver."""
    for _ in range(2):
        t.txn([C("k", "MOD", "=", 0)], [P("k", "created")], [])
    t.txn([C("k", "MOD", "=", 0)], [P("k", "x")], [G("k")])
    t.txn([C("k", "MOD", "=", t.r + 1)], [P("k", "updated")], [G("k")])
    t.txn([C("k", "MOD", "=", t.r + 1)], [P("k", "late")], [G("k")])
    t.txn([C("k", "MOD", "=", t.r + 1)], [D("k")], [G("k")])
    t.txn([C("k", "MOD", "=", t.r + 2)], [D("k")], [G("k")])
    t.txn([C("k", "MOD", "=", t.r + 2)], [D("k")], [G("k")])
    for version in (0, 0, 1):
        t.txn([C("compact_rev_key", "VERSION", "=", version)],
              [P("compact_rev_key", "7")], [G("compact_rev_key")])
