"""Cases, what they record, and the comparison of two records.

A case is a function that gets a `Recorder`: every call it makes is recorded with its answer. The same
case runs against two servers, and the records must be equal, field by field. Revisions are written
relative to the case's start (r+1), so that servers with different pasts compare; only ids, terms, sizes,
hashes and times are masked.
"""
import fnmatch, inspect, itertools, threading, time

from client import Failed, Gateway

CASES = {}


class Any:
    """In what is expected: a field that is there, whatever it holds."""

    def __eq__(self, other):
        return other != "-"

    def __ne__(self, other):
        return other == "-"


ANY = Any()


def case(function=None, *, essential=True, alone=False, gateway=True, spread=True, **fixed):
    """Registers a function as a case, named module.function.

    essential: in the share that `make test` runs; slow ones are not. alone: wants its own server
    (it may leave it unusable), with the flags of `flags=`. gateway: also makes sense through JSON.
    spread: its calls may go to any node in turn. expected: what a newer etcd than we have here answers,
    from its source: Polder is compared with that. etcd: only versions that begin with one of these.
    """
    def register(f):
        name = f"{f.__module__.split('.')[-1]}.{f.__name__}"
        add(name, f, essential, alone, gateway, spread, **fixed)
        return f
    return register(function) if function else register


def add(name, function, essential=True, alone=False, gateway=True, spread=True, flags=(), nodes=None,
        expected=None, etcd=("",)):
    assert name not in CASES, name
    CASES[name] = Case(
        name, function, essential, alone, gateway, spread, tuple(flags), nodes, expected, etcd)


class Case:
    def __init__(self, name, function, essential, alone, gateway, spread, flags, nodes, expected, etcd):
        self.name, self.function, self.essential = name, function, essential
        self.alone, self.gateway, self.spread = alone, gateway, spread
        self.flags, self.nodes, self.expected, self.etcd = flags, nodes, expected, etcd


REVISIONS = {"revision", "rev", "create_revision", "mod_revision", "compact_revision", "hash_revision"}
MASKED = {
    "cluster_id": "id", "member_id": "id", "memberID": "id", "leader": "id", "raft_term": "term",
    "raftTerm": "term", "raftIndex": "index", "raftAppliedIndex": "index", "dbSize": "size",
    "dbSizeInUse": "size", "hash": "hash", "remaining_bytes": "size", "blob": "bytes",
    "token": "token", "authRevision": "revision of auth",
}
KEY = "/conformance/none"


class Recorder:
    """What a case does to one server, and what came back."""

    def __init__(self, server, case, gateway=False, spread=False):
        self.server, self.case, self.steps = server, case, []
        channels = [server.channel(n) for n in server.names]
        if gateway:
            channels = [Gateway(c) for c in channels]
        self.gateway = gateway
        self.turns = itertools.cycle(channels if spread and case.spread else channels[:1])
        self.channels, self.leases, self.streams = channels, {}, []
        self.lock = threading.Lock()

    def clean(self):
        """Nothing of earlier cases: no keys, no leases."""
        first = self.server.channel()
        for lease in first.call("LeaseLeases").get("leases", []):
            try:
                first.call("LeaseRevoke", {"ID": lease["ID"]})
            except Failed:
                pass  # It has just expired.
        first.call("DeleteRange", {"key": b"\0", "range_end": b"\0"})
        for channel in {id(c): c for c in self.channels}.values():
            found = channel.call("Range", {"key": KEY})
        self.base = found["header"]["revision"]

    @property
    def r(self):
        """The revision at the start of the case."""
        return self.base

    def channel(self):
        return next(self.turns)

    def record(self, label, value):
        with self.lock:
            self.steps.append((label, self.masked(value)))

    def call(self, name, request=None, label=None, timeout=6.0, metadata=(), at=None, quiet=False):
        """Records the answer, or the error; returns the answer, or None."""
        channel = self.channel() if at is None else self.channels[at % len(self.channels)]
        try:
            answer = channel.call(name, request, timeout=timeout, metadata=metadata)
        except Failed as failure:
            if not quiet:
                self.record(label or name, {"error": failure.code, "text": failure.details})
            return None
        if name == "LeaseTimeToLive" and len(self.channels) > 1:
            # Of the node that was asked, whatever it has heard of so far.
            answer.get("header", {}).pop("revision", None)
        if not quiet:
            self.record(label or name, answer)
        return answer

    def stream(self, name, metadata=(), at=None, timeout=None):
        channel = self.channel() if at is None else self.channels[at % len(self.channels)]
        if name == "Watch" and len(self.server.names) > 1:
            # A watch from now on begins where its node is, which may be a moment behind.
            channel.call("Range", {"key": KEY})
        stream = channel.stream(name, metadata, timeout)
        self.streams.append(stream)
        return stream

    def watch(self, metadata=(), at=None):
        return Watch(self, self.stream("Watch", metadata, at))

    def raw(self, label, path, messages, **more):
        messages, code, text = self.channel().raw(path, messages, **more)
        self.record(label, {"messages": len(messages), "code": code, "text": text})

    def close(self):
        for stream in self.streams:
            stream.close()

    def masked(self, value, name=None):
        if isinstance(value, dict):
            return {k: self.masked(v, k) for k, v in value.items()}
        if isinstance(value, list):
            # The keys of a lease come in any order.
            return [self.masked(v, name) for v in (sorted(value) if name == "keys" else value)]
        if name in REVISIONS and isinstance(value, int) and value > 0:
            return f"r{value - self.base:+}"
        if name in ("ID", "lease") and isinstance(value, int) and value in self.leases:
            return self.leases[value]
        return MASKED.get(name, value)

    # Shorthands: every one of them records.

    def put(self, key, value="", quiet=False, **more):
        return self.call("Put", {"key": key, "value": value, **more}, quiet=quiet)

    def get(self, key, end="", **more):
        return self.call("Range", {"key": key, "range_end": end, **more})

    def delete(self, key, end="", **more):
        return self.call("DeleteRange", {"key": key, "range_end": end, **more})

    def txn(self, compare=(), success=(), failure=()):
        return self.call(
            "Txn", {"compare": list(compare), "success": list(success), "failure": list(failure)})

    def compact(self, revision, **more):
        return self.call("Compact", {"revision": revision, **more})

    def grant(self, ttl=60, id=0):
        """Returns the id; one that the server chose is masked from now on."""
        answer = self.call("LeaseGrant", {"TTL": ttl, "ID": id}, quiet=id == 0)
        if id == 0 and answer:
            self.leases[answer["ID"]] = f"lease {len(self.leases) + 1}"
            self.record("LeaseGrant", answer)
        return answer["ID"] if answer else id

    def until(self, name, request=None, ready=lambda answer: True, seconds=60):
        """Asks without recording until the answer is ready: on a busy machine it may come late."""
        end = time.time() + seconds
        while True:
            answer = self.call(name, request, quiet=True)
            if answer is not None and ready(answer) or time.time() > end:
                return answer
            time.sleep(0.2)

    def fill(self, *keys, prefix=""):
        """Puts without recording."""
        for i, key in enumerate(keys):
            self.call("Put", {"key": key, "value": f"{prefix}v{i}"}, quiet=True)


class Watch:
    def __init__(self, recorder, stream):
        self.t, self.stream, self.spare = recorder, stream, []

    def send(self, request):
        self.stream.send(request)

    def create(self, key, end="", **more):
        """Records the answer to it. Events that came first are kept for `events`."""
        self.send({"create_request": {"key": key, "range_end": end, **more}})
        kept = []
        while True:
            message = self.stream.next()
            if not isinstance(message, dict) or message.get("created"):
                break
            kept.append(message)
        self.spare += kept
        if isinstance(message, dict):
            # The moment is not fixed: other nodes may be a moment behind.
            message.get("header", {}).pop("revision", None)
        self.t.record("created", outcome(message))

    def _next(self, timeout=8.0):
        return self.spare.pop(0) if self.spare else self.stream.next(timeout)

    def next(self, label="message"):
        """Records the next message as it is."""
        self.t.record(label, outcome(self._next()))

    def events(self, count, sort=False):
        """Waits for so many events, however they are cut into messages; records them by watch."""
        found, total = {}, 0
        while total < count:
            message = self._next()
            if not isinstance(message, dict) or message.get("canceled"):
                found["end"] = outcome(message)
                break
            for event in message.get("events", []):
                found.setdefault(message.get("watch_id", 0), []).append(event)
                total += 1
        self.t.record("events", {str(k): v for k, v in sorted(found.items(), key=str)})

    def cancel(self, watch_id, label="cancelled"):
        self.send({"cancel_request": {"watch_id": watch_id}})
        message = self._next()
        if isinstance(message, dict):
            message.get("header", {}).pop("revision", None)
        self.t.record(label, outcome(message))

    def progress(self, label="progress"):
        self.send({"progress_request": {}})
        self.t.record(label, outcome(self._next()))

    def quiet(self, seconds=0.3):
        message = self._next(seconds)
        self.t.record("quiet", outcome(message))

    def end(self):
        self.stream.half_close()

    def close(self):
        self.stream.close()


def outcome(message):
    if message is None:
        return "nothing came"
    if isinstance(message, Failed):
        return {"end": message.code, "text": message.details}
    return message


def run(case, server, gateway=False, spread=False):
    """The record of one case against one server."""
    recorder = Recorder(server, case, gateway, spread)
    try:
        recorder.clean()
        case.function(recorder)
    except Failed as failure:
        recorder.record("the case failed", {"error": failure.code, "text": failure.details})
    except Exception as error:
        frame = inspect.trace()[-1]
        recorder.record(f"the case broke in line {frame.lineno}", f"{type(error).__name__}: {error}")
    finally:
        recorder.close()
    return recorder.steps


# Comparing

def flat(value, path=""):
    if isinstance(value, dict) and value:
        for key, content in value.items():
            yield from flat(content, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and value:
        for i, content in enumerate(value):
            yield from flat(content, f"{path}[{i}]")
    else:
        yield path, value


def differences(ours, theirs):
    """[(step, field, ours, theirs)]"""
    found = []
    for i, (a, b) in enumerate(itertools.zip_longest(ours, theirs)):
        step = f"{i + 1} {(a or b)[0]}"
        if a is None or b is None:
            found.append((step, "", a and a[1], b and b[1]))
            continue
        left, right = dict(flat(a[1])), dict(flat(b[1]))
        for path in sorted(set(left) | set(right)):
            mine, other = left.get(path, "-"), right.get(path, "-")
            if mine != other:
                found.append((step, path, mine, other))
    return found


class Known:
    """A difference that we know and want: `cases` and `field` are patterns, `etcd` a version's beginning."""

    def __init__(self, cases, field, reason, etcd=""):
        self.cases, self.field, self.reason, self.etcd = cases, field, reason, etcd
        self.seen = 0

    def covers(self, case, field, version):
        return (version.startswith(self.etcd) and fnmatch.fnmatchcase(case, self.cases)
                and fnmatch.fnmatchcase(field, self.field))
