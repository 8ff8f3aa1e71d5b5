#!/usr/bin/env python3
"""A client that behaves as a kube-apiserver does, and checks everything that it is told.

Several thousand objects, fifty writers with optimistic transactions, informers (a paged list at one
revision, then a watch from there with previous values and bookmarks), consistent lists from the informers'
caches after a progress request, leases that take events away, and a compaction every few seconds with
`compact_rev_key`. Only the calls and shapes that kube-apiservers send.

  kubernetes.py --polder P [--nodes 3] [--seconds 60]    or  --etcd E  to see that etcd passes too
"""
import argparse, os, random, sys, threading, time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
try:
    import grpc  # noqa: F401
except ImportError:
    sys.exit("this needs Python's grpcio: pip install grpcio, or apt-get install python3-grpcio")

from client import Channel, Failed
from servers import Ports, Server

COMPACTED = "etcdserver: mvcc: required revision has been compacted"
FUTURE = "etcdserver: mvcc: required revision is a future revision"
LEADER = (("hasleader", "true"), ("client-api-version", "3.6"))
RESOURCES = ("pods", "configmaps", "leases", "events")


class Wrong(Exception):
    pass


def expect(condition, *what):
    if not condition:
        raise Wrong(" ".join(str(w) for w in what))


class World:
    """What all threads share: the end of the run, findings, and the book of acknowledged writes."""

    def __init__(self, server, options):
        self.server, self.options = server, options
        self.stopping, self.lock = threading.Event(), threading.Lock()
        self.findings, self.counts = [], {}
        # Per resource {revision: (key, value or None for a deletion)}.
        self.book = {r: {} for r in RESOURCES}
        self.compacted, self.unknown = 0, set()
        # Nobody updates (and so creates) what its writer has not created yet.
        self.created = threading.Barrier(options.writers)

    def channel(self, number):
        names = self.server.names
        return Patient(self.server.channel(names[number % len(names)]))

    def count(self, what, by=1):
        with self.lock:
            self.counts[what] = self.counts.get(what, 0) + by

    def found(self, who, error):
        with self.lock:
            self.findings.append(f"{who}: {type(error).__name__}: {error}")
        self.stopping.set()

    def note(self, resource, revision, key, value):
        with self.lock:
            if revision in self.book[resource]:
                self.findings.append(f"revision {revision} was given twice")
            self.book[resource][revision] = (key, value)


class Worker(threading.Thread):
    def __init__(self, world, name):
        super().__init__(daemon=True, name=name)
        self.world = world

    def run(self):
        try:
            self.work()
        except Exception as error:
            self.world.found(self.name, error)


def prefix_end(prefix):
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


def passing(failure):
    """Of a machine so busy that leaders change: whoever reads asks again, whoever wrote does not know."""
    return failure.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED")


class Patient:
    """A channel whose reads are tried again, as a client's library does."""

    def __init__(self, channel):
        self.channel, self.stream = channel, channel.stream

    def call(self, name, request=None):
        end = time.time() + 60
        while True:
            try:
                return self.channel.call(name, request)
            except Failed as failure:
                if not passing(failure) or name not in ("Range", "Status") or time.time() > end:
                    raise
                time.sleep(0.1)


# MARK: Calls in a kube-apiserver's shapes

def get(channel, key, revision=0):
    request = {"key": key, "limit": 1}
    if revision:
        request["revision"] = revision
    answer = channel.call("Range", request)
    return answer["header"]["revision"], (answer.get("kvs") or [None])[0]


def optimistic(channel, key, revision, value=None, lease=0, read=True):
    """Put (or, without a value, delete) if `key` is as of `revision`. (done, header's revision, now)"""
    if value is None:
        action = {"request_delete_range": {"key": key}}
    else:
        put = {"key": key, "value": value}
        if lease:
            put["lease"] = lease
        action = {"request_put": put}
    answer = channel.call("Txn", {
        "compare": [{"key": key, "target": "MOD", "mod_revision": revision}], "success": [action],
        "failure": [{"request_range": {"key": key}}] if read else []})
    done, now = answer.get("succeeded", False), None
    if not done and read:
        responses = answer["responses"]
        expect(len(responses) == 1, "one response", answer)
        now = (responses[0]["response_range"].get("kvs") or [None])[0]
        expect((now or {}).get("mod_revision", 0) != revision, "refused without a reason", answer)
    return done, answer["header"]["revision"], now


def page_list(channel, prefix, limit, revision=0):
    """All pages at one revision, with the checks of a kube-apiserver's lister."""
    start, end, found, total = prefix, prefix_end(prefix), [], None
    while True:
        request = {"key": start, "range_end": end, "limit": limit}
        if revision:
            request["revision"] = revision
        answer = channel.call("Range", request)
        rows, count = answer.get("kvs", []), answer.get("count", 0)
        revision = revision or answer["header"]["revision"]
        expect(rows or not count, "rows are missing", count)
        expect(len(rows) <= limit, "more rows than asked for", len(rows))
        expect(bool(answer.get("more")) == (len(rows) < count), "more", answer.get("more"), count)
        total = count if total is None else total
        expect(len(found) + count == total, "count over pages", len(found), count, total)
        found += rows
        if not answer.get("more"):
            break
        start = rows[-1]["key"] + "\0"
    keys = [row["key"] for row in found]
    expect(keys == sorted(keys) and len(set(keys)) == len(keys), "keys in order, none twice")
    expect(all(row["mod_revision"] <= revision for row in found), "nothing from after the revision")
    return revision, found


# MARK: Writers

class Writer(Worker):
    def __init__(self, world, number):
        super().__init__(world, f"writer {number}")
        self.number, self.random = number, random.Random(world.options.seed * 1000 + number)
        self.channel = world.channel(number)
        self.lease, self.lease_until = 0, 0

    def work(self):
        options = self.world.options
        for i in range(self.number, options.objects, options.writers):
            if self.world.stopping.is_set():
                return self.world.created.abort()
            self.tried(self.create, *self.name_of(i))
        try:
            self.world.created.wait(self.world.options.seconds)
        except threading.BrokenBarrierError:
            return
        # The informers share one interpreter with the writers: as fast as the machine lets them, those would leave
        # the informers seconds behind, and the next compaction ahead of them.
        pause, due = options.writers / options.rate, time.monotonic()
        while not self.world.stopping.wait(max(0, due - time.monotonic())):
            due = max(due + pause, time.monotonic())
            resource, key = self.name_of(self.random.randrange(options.objects))
            if resource == "events":
                self.tried(self.event)
            elif self.random.random() < 0.15:
                self.tried(self.remove, resource, key)
            else:
                self.tried(self.update, resource, key)

    def tried(self, action, *what):
        """Whether what was under way has happened is not known when the call fails."""
        self.pending = None
        try:
            action(*what)
        except Failed as failure:
            if not passing(failure):
                raise
            self.world.count("outcomes unknown")
            if self.pending:
                with self.world.lock:
                    self.world.unknown.add(self.pending)

    def name_of(self, i):
        # Events are made under names of their own.
        resource = RESOURCES[i % len(RESOURCES)]
        return resource, f"/registry/{resource}/ns{i % 17:02}/object-{i:05}"

    def value(self, key):
        return f"{key}:{self.number}:{self.random.random()}:" + "x" * self.random.randrange(400)

    def create(self, resource, key):
        value = self.value(key)
        self.pending = (key, value)
        done, revision, _ = optimistic(self.channel, key, 0, value, read=False)
        expect(done, "an object existed before it was created:", key)
        self.world.note(resource, revision, key, value)
        self.world.count("created")

    def update(self, resource, key):
        _, held = get(self.channel, key)
        for _ in range(5):
            value = self.value(key)
            before = (held or {}).get("mod_revision", 0)
            self.pending = (key, value)
            done, revision, held = optimistic(self.channel, key, before, value)
            if done:
                expect(revision > before, "revisions rise", revision, before)
                self.world.note(resource, revision, key, value)
                return self.world.count("updated")
            self.world.count("conflicts")

    def remove(self, resource, key):
        _, held = get(self.channel, key)
        for _ in range(5):
            if not held:
                return
            self.pending = (key, None)
            done, revision, now = optimistic(self.channel, key, held["mod_revision"])
            if done:
                self.world.note(resource, revision, key, None)
                return self.world.count("deleted")
            held = now
            self.world.count("conflicts")

    def event(self):
        """Created with a lease that many share, never touched again: its end deletes it."""
        if time.time() > self.lease_until:
            answer = self.channel.call("LeaseGrant", {"TTL": 4})
            expect(answer["TTL"] == 4, "the TTL that was asked for", answer)
            self.lease, self.lease_until = answer["ID"], time.time() + 2
        key = f"/registry/events/ns00/event-{self.number}-{self.random.getrandbits(48):x}"
        value = self.value(key)
        self.pending = (key, value)
        try:
            done, revision, _ = optimistic(self.channel, key, 0, value, self.lease, read=False)
        except Failed as failure:
            if passing(failure):
                raise
            # Two seconds were not enough on a busy machine.
            expect("lease not found" in failure.details, failure)
            self.lease_until = 0
            return
        expect(done, "a new key existed:", key)
        self.world.note("events", revision, key, value)
        self.world.count("events")


# MARK: Informers

class Informer(Worker):
    """A watch cache of one resource. `slow`: reads so seldom that compactions overtake it."""

    def __init__(self, world, resource, number, slow=False):
        super().__init__(world, f"informer {number} of {resource}" + (", slow" if slow else ""))
        self.resource, self.prefix, self.slow = resource, f"/registry/{resource}/", slow
        self.channel = world.channel(number)
        self.cache, self.revision = {}, 0
        self.changed = threading.Condition()
        self.stream, self.history, self.gaps = None, {}, []

    def work(self):
        while not self.world.stopping.is_set() or not self.slow:
            self.relist()
            while (ended := self.follow()) is None:
                pass
            if ended:
                return

    def relist(self):
        revision, rows = page_list(self.channel, self.prefix, 500)
        with self.changed:
            expect(revision >= self.revision, "a list went back", revision, self.revision)
            if self.revision:
                self.gaps.append((self.revision, revision))
                self.world.count("lists again after a compaction")
            self.cache = {row["key"]: row for row in rows}
            self.revision = self.begun = revision
            self.gaps = self.gaps or [(0, revision)]
            self.changed.notify_all()

    def follow(self):
        """True when the run is over; False when history was compacted away."""
        stream = self.channel.stream("Watch", LEADER)
        stream.send({"create_request": {
            "key": self.prefix, "range_end": prefix_end(self.prefix),
            "start_revision": self.revision + 1, "prev_kv": True, "progress_notify": True}})
        self.stream = stream
        try:
            while not self.over:
                message = stream.next(0.5)
                if message is None:
                    continue
                if isinstance(message, Failed) and passing(message):
                    return self.resume()
                expect(isinstance(message, dict), "the stream ended:", message)
                if message.get("created"):
                    continue
                if message.get("canceled"):
                    expect(message.get("compact_revision", 0) > self.revision + 1
                           or message.get("compact_revision", 0) > 0, "cancelled:", message)
                    return False
                self.take(message)
                if self.slow:
                    # The client library reads on: what it takes in is bounded by flow control only.
                    if stream.incoming.qsize() > 50:
                        return self.pause()
        finally:
            self.stream = None
            stream.close()
        return True

    def resume(self):
        """A stream that lost its leader: another, from where this one was."""
        self.world.count("streams begun again")
        time.sleep(0.1)
        return self.over or None

    def pause(self):
        """Away for longer than history is kept; then from where it was."""
        self.world.stopping.wait(self.world.options.compact_every * 3)
        return self.world.stopping.is_set() and self.over

    over = False

    def take(self, message):
        revision = message["header"]["revision"]
        events = message.get("events", [])
        with self.changed:
            last = self.revision
            for event in events:
                row, before = event["kv"], event.get("prev_kv")
                key, at = row["key"], row["mod_revision"]
                # Several events of one transaction share a revision; here every write is of one key,
                # but a lease takes many at once.
                expect(at >= last and at > self.begun, "events in order", at, last, key)
                last = at
                held = self.cache.get(key)
                deletion = event.get("type") == "DELETE"
                if deletion:
                    expect(held, "a deletion of nothing:", key, at)
                    expect(before, "a deletion without its previous value:", key)
                    del self.cache[key]
                elif row["version"] == 1:
                    expect(not held, "created twice:", key, at)
                    expect(row["create_revision"] == at and not before, "a creation", event)
                    self.cache[key] = row
                else:
                    expect(held, "an update of nothing:", key, at)
                    expect(before, "an update without its previous value:", key)
                    expect(row["version"] == held["version"] + 1, "a version was left out:", key, at)
                    expect(row["create_revision"] == held["create_revision"], "creation", event)
                    self.cache[key] = row
                if before:
                    expect(before == held, "prev_kv is what was there:", before, held)
                self.history[at] = self.history.get(at, ()) + (
                    (key, None if deletion else row.get("value", "")),)
            if not events:
                expect(message.get("watch_id", 0) in (0, -1), "bookmark", message)
                expect(revision >= self.revision, "a bookmark went back", revision, self.revision)
                self.world.count("bookmarks")
            else:
                expect(revision >= last, "the header is behind its events", revision, last)
                self.world.count("events seen", len(events))
            # Events end with whole revisions; only a bookmark tells of those without any.
            self.revision = max(last, revision if not events else last)
            self.changed.notify_all()

    def reach(self, revision, seconds=60):
        """Asks for progress, as for a consistent list, until the cache is at least of `revision`."""
        end = time.time() + seconds
        while True:
            with self.changed:
                if self.revision >= revision:
                    return self.revision, dict(self.cache)
                stream = self.stream
            expect(time.time() < end, "no bookmark reached", revision, "in time:", self.revision)
            if stream:
                stream.send({"progress_request": {}})
            with self.changed:
                self.changed.wait_for(lambda: self.revision >= revision, 0.1)


class Consistent(Worker):
    """Consistent lists from a cache, beside a list of the server at the same revision."""

    def __init__(self, world, informer, number):
        super().__init__(world, f"consistent lists of {informer.resource}")
        self.informer, self.channel = informer, world.channel(number)

    def work(self):
        prefix = self.informer.prefix
        while not self.world.stopping.wait(0.2):
            if not self.informer.revision:
                continue
            now, none = get(self.channel, prefix[:-1])
            expect(none is None, "an object where none is:", none)
            at, cache = self.informer.reach(now)
            try:
                _, rows = page_list(self.channel, prefix, 10_000, revision=at)
            except Failed as failure:
                expect(failure.details == COMPACTED, failure)
                continue
            expect({row["key"]: row for row in rows} == cache, "cache and list differ at", at,
                   sorted({r["key"] for r in rows} ^ set(cache))[:5])
            self.world.count("consistent lists")


class Lister(Worker):
    """Lists in small pages at one revision while everything changes."""

    def __init__(self, world, number):
        super().__init__(world, f"lister {number}")
        self.channel, self.random = world.channel(number), random.Random(number)

    def work(self):
        while not self.world.stopping.wait(0.3):
            prefix = f"/registry/{self.random.choice(RESOURCES)}/"
            try:
                revision, pages = page_list(self.channel, prefix, self.random.choice((37, 100, 250)))
                answer = self.channel.call("Range", {
                    "key": prefix, "range_end": prefix_end(prefix), "revision": revision})
                expect(answer.get("kvs", []) == pages, "pages and the whole differ at", revision)
                count = self.channel.call("Range", {
                    "key": prefix, "range_end": prefix_end(prefix), "revision": revision,
                    "count_only": True}).get("count", 0)
                expect(count == len(pages), "count_only", count, len(pages))
                self.world.count("paged lists")
            except Failed as failure:
                # The continue token of a slow client: 410 Gone.
                expect(failure.details == COMPACTED and failure.code == "OUT_OF_RANGE", failure)
                self.world.count("lists that were compacted away")


class Compactor(Worker):
    """As of several apiservers: whoever wins compact_rev_key compacts up to where it was last time."""

    def work(self):
        channel = self.world.channel(0)
        version, revision = 0, 0
        while not self.world.stopping.wait(self.world.options.compact_every):
            try:
                answer = channel.call("Txn", {
                    "compare": [{"key": "compact_rev_key", "target": "VERSION", "version": version}],
                    "success": [{"request_put": {"key": "compact_rev_key", "value": str(revision)}}],
                    "failure": [{"request_range": {"key": "compact_rev_key"}}]})
                expect(answer.get("succeeded"), "nobody else writes compact_rev_key", answer)
                now = answer["header"]["revision"]
                version += 1
                if revision:
                    channel.call("Compact", {"revision": revision})
            except Failed as failure:
                if not passing(failure):
                    raise
                _, row = get(channel, "compact_rev_key")
                version, revision = (row or {}).get("version", 0), 0
                continue
            if revision:
                self.world.count("compactions")
                self.check(channel, revision)
                self.world.compacted = revision
            revision = now
        try:
            get(channel, "/registry/health", 1 << 50)
            raise Wrong("a future revision was answered")
        except Failed as failure:
            expect(failure.code == "OUT_OF_RANGE" and failure.details == FUTURE, failure)

    def check(self, channel, revision):
        get(channel, "/registry/health", revision)
        for call in (lambda: get(channel, "/registry/health", revision - 1),
                     lambda: channel.call("Compact", {"revision": revision})):
            try:
                call()
            except Failed as failure:
                expect(failure.code == "OUT_OF_RANGE" and failure.details == COMPACTED, failure)
            else:
                raise Wrong(f"compacted at {revision}, and yet answered")


# MARK: The run

def run(server, options):
    world = World(server, options)
    status = server.channel().call("Status")
    numbers = [int(n) for n in status["version"].split(".")]
    expect(len(numbers) == 3, "Status.version has three numbers:", status["version"])
    informers = [Informer(world, r, i) for i, r in enumerate(RESOURCES)]
    informers += [Informer(world, r, i + 1) for i, r in enumerate(RESOURCES[:2])]
    slow = Informer(world, "pods", 1, slow=True)
    others = [Consistent(world, informer, i + 2) for i, informer in enumerate(informers[:4])]
    others += [Lister(world, i) for i in range(2)] + [Compactor(world, "compactor"), slow]
    writers = [Writer(world, i) for i in range(options.writers)]
    for worker in informers + writers + others:
        worker.start()
    world.stopping.wait(options.seconds)
    world.stopping.set()
    slow.over = True
    for worker in writers + others:
        worker.join(90)
        if worker.is_alive():
            world.found(worker.name, Wrong("did not come to its end"))
    try:
        if not world.findings:
            settle(world, server, informers)
    except Exception as error:
        world.found("at the end", error)
    for informer in informers:
        informer.over = True
    for informer in informers:
        informer.join(10)
    return world


def settle(world, server, informers):
    """Every cache is the server's state; every acknowledged write was told to everybody, once."""
    channel = server.channel()
    for informer in informers:
        now, _ = get(channel, informer.prefix[:-1])
        at, cache = informer.reach(now)
        _, rows = page_list(channel, informer.prefix, 10_000, revision=at)
        expect({row["key"]: row for row in rows} == cache, informer.name, "differs at the end")
        expect(len(informer.gaps) == 1, informer.name, "had to list again:", informer.gaps)
        book, first = world.book[informer.resource], informer.gaps[0][1]
        missing = [r for r in book if r > first and book[r] not in informer.history.get(r, ())]
        expect(not missing, informer.name, "was not told of acknowledged writes", sorted(missing)[:5])
        if informer.resource != "events":
            strange = [r for r, told in informer.history.items()
                       if r not in book and not set(told) <= world.unknown]
            expect(not strange, informer.name, "was told of writes of nobody", sorted(strange)[:5])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--polder")
    parser.add_argument("--etcd", help="the model against real etcd: it must pass there too")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--objects", type=int, default=3000)
    parser.add_argument("--writers", type=int, default=50)
    parser.add_argument("--rate", type=float, default=500, help="writes a second, of all writers together")
    parser.add_argument("--compact-every", type=float, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--base-port", type=int, default=21000 + os.getpid() % 97 * 100)
    options = parser.parse_args()
    program = [options.etcd] if options.etcd else [os.path.abspath(options.polder), "etcd"]
    began = time.time()
    server = Server("server", program, Ports(options.base_port), options.nodes)
    try:
        world = run(server, options)
    finally:
        server.remove()
    for finding in world.findings[:10]:
        print(f"FAIL  {finding[:1500]}", flush=True)
    print(f"kubernetes model, {options.nodes} node(s), {time.time() - began:.0f} s: "
          + ", ".join(f"{n} {what}" for what, n in sorted(world.counts.items())), flush=True)
    os._exit(1 if world.findings else 0)


if __name__ == "__main__":
    main()
