"""Leases: grants, ids, times to live, renewals, expiry."""
import time

from harness import add, case
from cases.ops import *


def alive(t, lease, keys=False, label="time to live"):
    """The remaining time is masked where it cannot be known."""
    answer = t.call("LeaseTimeToLive", {"ID": lease, "keys": keys}, quiet=True)
    if answer and answer.get("TTL", 0) > 0:
        answer["TTL"] = "within" if answer["TTL"] <= answer.get("grantedTTL", 0) else answer["TTL"]
    if answer and "keys" in answer:
        answer["keys"].sort()
    if answer:
        # That of the node that answers, which may be a moment behind.
        answer.get("header", {}).pop("revision", None)
    t.record(label, answer)


@case
def grant(t):
    for ttl in (60, 1, 2, 3, 0, -1, -2 ** 63, 9_000_000_000, 9_000_000_001, 2 ** 63 - 1):
        answer = t.call("LeaseGrant", {"TTL": ttl}, quiet=True)
        t.record(f"grant {ttl}", {"TTL": answer and answer.get("TTL"), "has an id":
                                  bool(answer and answer.get("ID", 0) > 0),
                                  "error": answer and answer.get("error")})
    t.call("LeaseGrant", {"TTL": 9_000_000_001})
    t.call("LeaseGrant", {"TTL": 2 ** 63 - 1, "ID": 3})
    answer = t.call("LeaseGrant", {}, quiet=True)
    t.record("nothing said", {"TTL": answer.get("TTL"), "has an id": answer.get("ID", 0) > 0})


@case(spread=False)
def grant_ids(t):
    t.grant(60, 1234)
    t.grant(60, 1234)
    t.grant(90, 1234)
    t.grant(60, -7)
    alive(t, -7)
    t.grant(60, 2 ** 63 - 1)
    t.grant(60, -2 ** 63)
    t.call("LeaseRevoke", {"ID": 1234})
    t.grant(60, 1234)
    leases = t.call("LeaseLeases", quiet=True)
    t.record("leases", sorted(lease["ID"] for lease in leases.get("leases", [])))
    for lease in (-7, 2 ** 63 - 1, -2 ** 63, 1234):
        t.call("LeaseRevoke", {"ID": lease})


@case
def revoke(t):
    lease = t.grant()
    t.put("a", "1", lease=lease)
    t.put("b", "1", lease=lease)
    t.put("c", "1")
    t.call("LeaseRevoke", {"ID": lease})
    t.get(*ALL)
    t.call("LeaseRevoke", {"ID": lease})
    t.call("LeaseRevoke", {"ID": 0})
    t.call("LeaseRevoke", {"ID": -3})
    t.put("d", "after")


@case
def revoke_without_keys_takes_no_revision(t):
    lease = t.grant()
    t.call("LeaseRevoke", {"ID": lease})
    t.put("a", "1")
    lease = t.grant()
    t.put("a", "2", lease=lease)
    t.put("a", "3")
    t.call("LeaseRevoke", {"ID": lease})
    t.get("a")


@case
def revoke_of_many_keys_is_one_revision(t):
    lease = t.grant()
    t.txn([], [P(f"k{i:02}", "x", lease=lease) for i in range(50)])
    w = t.watch()
    w.create("k", "l")
    t.call("LeaseRevoke", {"ID": lease})
    w.events(50)
    t.get("k", "l")


@case
def grants_take_no_revision(t):
    t.grant()
    t.grant()
    t.put("a", "1")


@case
def time_to_live(t):
    lease = t.grant(100)
    alive(t, lease)
    alive(t, lease, keys=True)
    t.put("a", "1", lease=lease)
    t.put("b", "1", lease=lease)
    alive(t, lease)
    alive(t, lease, keys=True)
    t.put("a", "2")
    alive(t, lease, keys=True)
    t.call("LeaseTimeToLive", {"ID": 999})
    t.call("LeaseTimeToLive", {"ID": 999, "keys": True})
    t.call("LeaseTimeToLive", {"ID": 0})
    t.call("LeaseTimeToLive", {"ID": -1})


def keys_are_known_at_once(t):
    """Wherever one asks: never from an old replica (as those of etcd 3.5.1 are)."""
    lease, wrong = t.call("LeaseGrant", {"TTL": 60}, quiet=True)["ID"], []

    def check(expected):
        answer = t.call("LeaseTimeToLive", {"ID": lease, "keys": True}, quiet=True)
        if sorted(answer.get("keys", [])) != expected:
            wrong.append((expected, answer))
    keys = [f"k{i:02}" for i in range(20)]
    for i in range(20):
        t.put(keys[i], "1", lease=lease, quiet=True)
        check(keys[:i + 1])
    for i in range(20):
        t.call("DeleteRange", {"key": keys[i]}, quiet=True)
        check(keys[i + 1:])
    t.record("wrong", wrong[:1])


add("lease.keys_are_known_at_once", keys_are_known_at_once, expected=[("wrong", [])])


@case(spread=False)
def leases_are_known_at_once(t):
    for i in range(10):
        t.grant(60, 100 + i)
        leases = t.call("LeaseLeases", quiet=True)
        t.record("leases", sorted(lease["ID"] for lease in leases.get("leases", [])))
    for i in range(10):
        t.call("LeaseRevoke", {"ID": 100 + i})
        leases = t.call("LeaseLeases", quiet=True)
        t.record("leases", sorted(lease["ID"] for lease in leases.get("leases", [])))


@case(spread=False)
def leases(t):
    t.call("LeaseLeases")
    t.grant(60, 5)
    t.call("LeaseLeases")
    t.call("LeaseRevoke", {"ID": 5})
    t.call("LeaseLeases")


@case
def keep_alive(t):
    lease = t.grant(60, 77)
    stream = t.stream("LeaseKeepAlive")
    for id in (lease, lease, 999, 0, -1, lease):
        stream.send({"ID": id})
        t.record(f"kept alive {id}", stream.next())
    t.call("LeaseRevoke", {"ID": lease})
    stream.send({"ID": lease})
    t.record("kept alive after revoking", stream.next())
    stream.half_close()
    end = stream.next()
    t.record("end", {"code": end.code, "text": end.details} if hasattr(end, "code") else end)


@case
def keep_alive_many_at_once(t):
    for i in range(10):
        t.grant(60, 500 + i)
    stream = t.stream("LeaseKeepAlive")
    for i in range(30):
        stream.send({"ID": 500 + i % 12})
    answers = [stream.next() for _ in range(30)]
    t.record("ids and times", [(a.get("ID"), a.get("TTL")) for a in answers])


@case(essential=False)
def keep_alive_renews(t):
    lease = t.grant(3, 88)
    t.put("a", "1", lease=lease)
    stream = t.stream("LeaseKeepAlive")
    for _ in range(4):
        time.sleep(1.2)
        stream.send({"ID": lease})
        t.record("kept alive", stream.next())
    t.get("a")


@case
def expiry(t):
    lease = t.grant(2, 99)
    t.put("a", "1", lease=lease)
    t.put("b", "1", lease=lease)
    t.put("a", "2")
    w = t.watch()
    w.create("a", "z", prev_kv=True)
    w.events(1)
    t.get(*ALL)
    t.call("LeaseTimeToLive", {"ID": lease, "keys": True})
    t.call("LeaseRevoke", {"ID": lease})
    stream = t.stream("LeaseKeepAlive")
    stream.send({"ID": lease})
    t.record("kept alive", stream.next())
    t.put("c", "1", lease=lease)
    t.grant(60, 99)


@case(essential=False)
def a_short_ttl_is_raised(t):
    # A machine that is so late that two seconds have passed shows nothing.
    for _ in range(10):
        began = time.time()
        granted = t.until("LeaseGrant", {"TTL": 1})
        t.until("Put", {"key": "a", "value": "1", "lease": granted["ID"]})
        time.sleep(1.3)
        found = t.until("Range", {"key": "a"})
        if time.time() - began < 1.9:
            break
    t.record("after 1.3 s", {"TTL": granted["TTL"], "count": found.get("count", 0)})


@case
def a_key_changes_its_lease(t):
    one, two = t.grant(60, 41), t.grant(60, 42)
    t.put("a", "1", lease=one)
    t.put("a", "2", lease=two)
    alive(t, one, keys=True)
    alive(t, two, keys=True)
    t.call("LeaseRevoke", {"ID": one})
    t.get("a")
    t.call("LeaseRevoke", {"ID": two})
    t.get("a")


@case
def a_lease_of_many_keys(t):
    lease = t.grant(60, 43)
    for i in range(100):
        t.call("Put", {"key": f"k{i:03}", "lease": lease}, quiet=True)
    # etcd's leader tells which keys, and may be behind the member that has answered.
    def settled(count):
        t.until("LeaseTimeToLive", {"ID": lease, "keys": True},
                ready=lambda answer: len(answer.get("keys", [])) == count, seconds=20)
    settled(100)
    alive(t, lease, keys=True)
    t.delete("k000", "k050")
    settled(50)
    alive(t, lease, keys=True)
    t.call("LeaseRevoke", {"ID": lease})
    t.get("k", "l", count_only=True)
