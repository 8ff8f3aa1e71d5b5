"""Watch: starts, filters, previous values, ids, cancels, progress, compaction, several at once."""
from harness import ANY, add, case, outcome
from cases.ops import *


@case
def of_a_key(t):
    w = t.watch()
    w.create("a")
    t.put("a", "1")
    t.put("b", "1")
    t.put("a", "2")
    t.delete("a")
    w.events(3)
    w.quiet()


@case
def of_ranges(t):
    for key, end in (("a", "c"), ("a", b"\0"), (b"\0", b"\0"), ("", b"\0"), ("", "c"), ("b", "b\0")):
        w = t.watch()
        w.create(key, end)
        t.txn([], [P("a", "1"), P("b", "2"), P("c", "3")])
        w.events(1)
        w.quiet(0.1)
        w.close()


@case
def of_odd_ranges(t):
    for key, end in (("", ""), ("b", "a"), ("b", "b"), ("", "a"), (b"\0", "")):
        w = t.watch()
        w.create(key, end)
        t.put("b", "1")
        w.quiet(0.15)
        w.close()


@case
def from_the_past(t):
    t.fill("a", "b", "a")
    t.delete("b")
    w = t.watch()
    w.create("a", "z", start_revision=t.r + 1)
    w.events(4)
    t.put("c", "now")
    w.events(1)
    for start in (t.r + 2, t.r + 4, t.r + 5):
        other = t.watch()
        other.create("a", "z", start_revision=start)
        other.events(t.r + 6 - start)


@case
def from_the_future(t):
    w = t.watch()
    w.create("a", start_revision=t.r + 3)
    t.put("a", "1")
    t.put("a", "2")
    t.put("a", "3")
    t.put("a", "4")
    w.events(2)
    w.quiet(0.1)


@case
def from_a_revision_that_never_comes(t):
    w = t.watch()
    w.create("a", start_revision=2 ** 63 - 1)
    t.put("a", "2")
    w.quiet(0.15)


def from_negative_revisions(t):
    for start in (-1, -100, -2 ** 63):
        w = t.watch()
        w.create("a", start_revision=start)
        t.put("a", "2", quiet=True)
        w.quiet(0.1)
        w.close()


add("watch.from_negative_revisions", from_negative_revisions, expected=[
    ("created", {"header": {"cluster_id": ANY, "member_id": ANY, "raft_term": ANY}, "watch_id": -1,
                 "created": True, "canceled": True,
                 "cancel_reason": "etcdserver: mvcc: required revision has been compacted"}),
    ("quiet", "nothing came")] * 3)


@case
def previous_values(t):
    t.put("a", "1")
    w = t.watch()
    w.create("a", "z", prev_kv=True)
    t.put("a", "2")
    t.put("b", "1")
    t.delete("a")
    t.put("a", "3")
    t.txn([], [P("a", "4"), D("b")])
    w.events(6)


@case
def previous_values_in_the_past(t):
    t.fill("a", "a")
    t.delete("a")
    t.fill("a", "b")
    for start in range(1, 6):
        w = t.watch()
        w.create("a", "z", prev_kv=True, start_revision=t.r + start)
        w.events(6 - start)


@case(spread=False)
def previous_values_over_a_compaction(t):
    t.fill("a", "a", "a", "a")
    t.compact(t.r + 3)
    w = t.watch()
    w.create("a", prev_kv=True, start_revision=t.r + 3)
    w.events(2)


def filters(name, chosen):
    def run(t):
        t.fill("a")
        w = t.watch()
        w.create("a", "z", filters=chosen, start_revision=t.r + 1, prev_kv=True)
        t.put("b", "1")
        t.delete("b")
        t.txn([], [P("a", "2"), D("b"), P("c", "1")])
        t.delete("a", "z")
        t.put("end", "1")
        t.delete("end")
        w.events({(): 9, (0,): 4, (1,): 5, (0, 1): 1}.get(tuple(sorted(set(chosen))), 1))
        w.quiet(0.1)
    add("watch.filters_" + name, run)


filters("none", [])
filters("noput", [0])
filters("nodelete", [1])
filters("twice", [0, 0])


@case
def filters_of_everything(t):
    w = t.watch()
    w.create("a", "z", filters=[0, 1])
    t.put("a", "1")
    t.delete("a")
    w.quiet(0.2)


@case
def several_on_a_stream(t):
    w = t.watch()
    w.create("a")
    w.create("b")
    w.create("a", "z")
    w.create("a", start_revision=t.r + 1)
    t.put("a", "1")
    t.put("b", "1")
    t.put("c", "1")
    w.events(6)
    w.cancel(1)
    t.put("b", "2")
    w.events(1)
    w.create("b")
    t.put("b", "3")
    w.events(2)
    w.quiet(0.1)


@case
def ids_of_the_client(t):
    w = t.watch()
    w.create("a", watch_id=7)
    w.create("b", watch_id=7)
    w.create("b", watch_id=1)
    w.create("c")
    w.create("d")
    w.create("e")
    w.create("f", watch_id=-5)
    w.create("g", watch_id=-1)
    t.txn([], [P(k, "1") for k in "abcdefg"])
    w.events(7)


@case
def ids_again_after_cancelling(t):
    w = t.watch()
    w.create("a")
    w.create("a", watch_id=5)
    w.cancel(5)
    w.create("b", watch_id=5)
    w.cancel(0)
    w.create("c")
    w.create("d", watch_id=0)
    t.put("b", "1")
    w.events(1)


@case
def cancel_unknown(t):
    w = t.watch()
    w.send({"cancel_request": {"watch_id": 99}})
    w.quiet(0.15)
    w.create("a")
    w.cancel(0)
    w.send({"cancel_request": {"watch_id": 0}})
    w.quiet(0.15)
    w.create("a")
    t.put("a", "1")
    w.events(1)


@case
def empty_messages(t):
    w = t.watch()
    w.send({})
    w.quiet(0.1)
    w.send({"cancel_request": {}})
    w.quiet(0.1)
    w.create("a")
    w.send({})
    t.put("a", "1")
    w.events(1)


@case(gateway=False)
def rubbish(t):
    w = t.watch()
    w.stream.outgoing.put(b"\x0a\xff\xff")
    end = w.stream.next()
    t.record("end", getattr(end, "code", end))


@case
def half_closed(t):
    w = t.watch()
    w.create("a")
    w.end()
    t.put("a", "1")
    w.next("event or end")


@case
def half_closed_at_once(t):
    w = t.watch()
    w.end()
    w.quiet(0.3)


@case
def of_compacted_history(t):
    t.fill("a", "a", "a", "b")
    t.compact(t.r + 3)
    for start in (t.r + 1, t.r + 2, t.r + 3, t.r + 4):
        w = t.watch()
        w.create("a", "z", start_revision=start, watch_id=start - t.r)
        if start < t.r + 3:
            message = w._next()
            message.pop("header", None)
            t.record("cancelled", message)
        else:
            w.events(t.r + 5 - start)
        w.close()


@case
def compaction_spares_living_watches(t):
    w = t.watch()
    w.create("a")
    t.fill("a", "a", "a")
    t.compact(t.r + 3)
    t.put("a", "later")
    w.events(4)


@case(spread=False)
def compaction_before_a_stream_is_used_again(t):
    """Whichever node was asked for the compaction knows of it when it answers. (Another one, of etcd's too,
    may hear of it later; at the latest when it is asked for a linearizable read: `of_compacted_history`.)"""
    for node in range(3):
        t.fill("a", "a", "a")
        w = t.watch(at=node)
        w.create("a")
        t.call("Compact", {"revision": t.r + 4 * node + 3}, at=node)
        w.create("a", start_revision=t.r + 4 * node + 1)
        message = w._next()
        t.record("cancelled", {k: v for k, v in message.items() if k != "header"}
                 if isinstance(message, dict) else str(message))
        t.put("a", "still there")
        w.events(1)
        w.close()


@case
def a_transaction_is_one_message(t):
    w = t.watch()
    w.create("a", "z", prev_kv=True)
    t.txn([], [P("a", "1"), P("b", "1"), P("c", "1")])
    w.next()
    t.txn([], [D("a", "z"), P("zz", "1")])
    w.next()
    t.txn([], [P("c", "2"), P("a", "2"), P("b", "2"), D("none")])
    w.next()


@case
def a_message_of_one_put(t):
    w = t.watch()
    w.create("a")
    t.put("a", "1")
    w.next()
    t.put("a", "2")
    w.next()
    t.delete("a")
    w.next()


@case
def lease_ends(t):
    lease = t.grant()
    w = t.watch()
    w.create("a", "z", prev_kv=True)
    t.put("a", "1", lease=lease)
    t.put("b", "1", lease=lease)
    t.call("LeaseRevoke", {"ID": lease})
    w.events(4)


@case(spread=False)
def progress_request(t):
    w = t.watch()
    w.create("a")
    t.put("a", "1")
    w.events(1)
    w.progress()
    t.put("other", "1")
    w.progress()
    w.progress()


def progress_request_without_watch(t):
    w = t.watch()
    w.send({"progress_request": {}})
    w.quiet(0.2)


add("watch.progress_request_without_watch", progress_request_without_watch,
    expected=[("quiet", "nothing came")])


@case(spread=False)
def progress_request_of_several(t):
    w = t.watch()
    w.create("a")
    w.create("b", start_revision=t.r + 1)
    t.put("a", "1")
    t.put("b", "1")
    w.events(2)
    w.progress()


@case(essential=False, spread=False, etcd=("3.5", "3.6", "3.7"))
def progress_by_itself(t):
    """The servers run with an interval of one second."""
    w = t.watch()
    w.create("a", progress_notify=True)
    w.create("b")
    t.put("c", "1")
    w.next("progress")
    w.next("progress")


@case(essential=False, spread=False, etcd=("3.5", "3.6", "3.7"))
def progress_by_itself_not_after_events(t):
    w = t.watch()
    w.create("a", progress_notify=True)
    w.create("b", progress_notify=True)
    for interval in range(2):
        # etcd tells its watchers in the order of a Go map, which is none.
        both = [w._next() for _ in range(2)]
        both.sort(key=lambda m: int(m.get("watch_id", 0)) if isinstance(m, dict) else -1)
        for message in both:
            t.record("progress", outcome(message))


@case(gateway=False)
def fragments(t):
    for fragment in (False, True):
        t.call("DeleteRange", {"key": b"\0", "range_end": b"\0"}, quiet=True)
        w = t.watch()
        w.create("k", "l", fragment=fragment)
        t.call("Txn", {"success": [P(f"k{i}", "x" * 100_000) for i in range(14)]}, quiet=True)
        w.stream.incoming.queue  # What follows is compared whole.
        total, messages = 0, 0
        while total < 14:
            message = w._next()
            if not isinstance(message, dict):
                break
            total += len(message.get("events", []))
            messages += 1
        t.record("events", total)
        if not fragment:
            t.record("messages", messages)
        w.close()


@case(gateway=False)
def fragments_of_past_events(t):
    for i in range(30):
        t.call("Put", {"key": f"k{i}", "value": "x" * 200_000}, quiet=True)
    w = t.watch()
    w.create("k", "l", fragment=True, start_revision=t.r + 1)
    events, ends = [], []
    while len(events) < 30:
        message = w._next()
        if not isinstance(message, dict):
            break
        events += [e["kv"]["key"] for e in message.get("events", [])]
        ends.append(message.get("fragment", False))
    t.record("keys", events)
    t.record("the last is no fragment", not ends[-1])


@case
def many_watches(t):
    w = t.watch()
    for i in range(200):
        w.send({"create_request": {"key": f"k{i}"}})
    created = [w._next() for _ in range(200)]
    t.record("created", [isinstance(m, dict) and m.get("watch_id", 0) for m in created])
    t.txn([], [P(f"k{i}", "x") for i in range(100)])
    w.events(100)


@case
def many_streams(t):
    watches = [t.watch() for _ in range(30)]
    for w in watches:
        w.create("a", "z", prev_kv=True)
    t.put("a", "1")
    t.put("a", "2")
    for w in watches:
        w.events(2)


@case
def ordering_over_many_writes(t):
    w = t.watch()
    w.create("k", "l", start_revision=t.r + 1)
    for i in range(60):
        t.call("Put", {"key": f"k{i % 7}", "value": str(i)}, quiet=True)
    w.events(60)


@case(spread=False)
def has_leader(t):
    w = t.watch(metadata=[("hasleader", "true")])
    w.create("a")
    t.put("a", "1")
    w.events(1)
    t.call("Range", {"key": "a"}, metadata=[("hasleader", "true")])
    t.call("Put", {"key": "a"}, metadata=[("hasleader", "true")])


@case
def a_lease_expires(t):
    w = t.watch()
    w.create("a", prev_kv=True)
    lease = t.grant(2)
    t.put("a", "1", lease=lease)
    w.events(2)
