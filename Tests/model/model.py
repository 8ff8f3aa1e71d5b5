#!/usr/bin/env python3
"""Random requests against a model of etcd in memory: model.py --polder POLDER | --etcd ETCD

Requests of all kinds with all their options (puts, ranges, deletions, nested transactions, leases,
compaction, watches) go to a real server, one after the other, and each answer is compared with the model's,
field by field; watchers must have been told the model's events, in its order. A difference is shrunk to the
fewest requests that still show it, and printed with what repeats it. Against etcd the same run proves the
model.
"""
import argparse, os, random, sys, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "conformance"))

from client import Failed
from reference import Model, Refused
from servers import Ports, Server

KEYS = ["a", "b", "b\0", "c/1", "c/2", "d", "é"]
EDGES = KEYS + ["\0", "c/", "c0", "zz", ""]
LEASES = [101, 102, 103]


class Difference(Exception):
    pass


# Making requests. Revisions are relative to where the case begins, so that a case can be repeated.

class Maker:
    def __init__(self, luck):
        self.luck, self.written = luck, 0

    def chance(self, part):
        return self.luck.random() < part

    def range_of_keys(self):
        key = self.luck.choice(EDGES if self.chance(0.3) else KEYS)
        end = self.luck.choice(["", "", "\0", self.luck.choice(EDGES)])
        return {"key": key, "range_end": end} if end else {"key": key}

    def revision(self):
        return ("revision", self.luck.randint(0, max(2, self.written + 2)))

    def put(self):
        body = {"key": self.luck.choice(KEYS) if self.chance(0.98) else ""}
        if self.chance(0.8):
            body["value"] = self.luck.choice(["x", "y", "long value", "\0"])
        if self.chance(0.25):
            body["lease"] = self.luck.choice(LEASES + [999])
        for flag, part in (("prev_kv", 0.4), ("ignore_value", 0.1), ("ignore_lease", 0.1)):
            if self.chance(part):
                body[flag] = True
        if body.get("ignore_value") and self.chance(0.8):
            body.pop("value", None)
        if body.get("ignore_lease") and self.chance(0.8):
            body.pop("lease", None)
        self.written += 1
        return body

    def range(self):
        body = self.range_of_keys()
        if self.chance(0.3):
            body["limit"] = self.luck.randint(1, 4)
        if self.chance(0.3):
            body["revision"] = self.revision()
        if self.chance(0.4):
            body["sort_order"] = self.luck.choice(["NONE", "ASCEND", "DESCEND"])
            body["sort_target"] = self.luck.choice(["KEY", "VERSION", "CREATE", "MOD", "VALUE"])
        for flag in ("serializable", "keys_only", "count_only"):
            if self.chance(0.15):
                body[flag] = True
        for bound in ("min_mod_revision", "max_mod_revision", "min_create_revision", "max_create_revision"):
            if self.chance(0.08):
                body[bound] = self.revision()
        return body

    def delete(self, inside=False):
        body = self.range_of_keys()
        # Inside of a transaction Polder is stricter than etcd with this form (docs/etcd-compatibility.md).
        if inside and body.get("range_end") == "\0":
            del body["range_end"]
        if self.chance(0.4):
            body["prev_kv"] = True
        self.written += 1
        return body

    def compare(self):
        body = self.range_of_keys() if self.chance(0.3) else {"key": self.luck.choice(KEYS)}
        body["key"] = body["key"] or "a"
        body["target"] = self.luck.choice(["VERSION", "CREATE", "MOD", "VALUE", "LEASE"])
        body["result"] = self.luck.choice(["EQUAL", "NOT_EQUAL", "GREATER", "LESS"])
        name = {"VERSION": "version", "CREATE": "create_revision", "MOD": "mod_revision", "VALUE": "value",
                "LEASE": "lease"}[body["target"]]
        if name == "value":
            body[name] = self.luck.choice(["x", "y", ""])
        elif name == "lease":
            body[name] = self.luck.choice(LEASES + [0])
        elif name == "version":
            body[name] = self.luck.randint(0, 3)
        else:
            body[name] = self.revision() if self.chance(0.8) else 0
        return body

    def operation(self, depth):
        kind = self.luck.random()
        if kind < 0.4:
            return {"request_put": self.put()}
        if kind < 0.7:
            return {"request_range": self.range()}
        if kind < 0.85 or depth >= 3:
            return {"request_delete_range": self.delete(inside=True)}
        return {"request_txn": self.transaction(depth + 1)}

    def transaction(self, depth=0):
        several = lambda most: range(self.luck.randint(0, most))
        return {
            "compare": [self.compare() for _ in several(2)],
            "success": [self.operation(depth) for _ in several(4)],
            "failure": [self.operation(depth) for _ in several(3)],
        }

    def watch(self):
        body = self.range_of_keys()
        body["key"] = body["key"] or "a"
        if self.chance(0.5):
            body["start_revision"] = self.revision()
        if self.chance(0.3):
            body["filters"] = [self.luck.choice(["NOPUT", "NODELETE"])]
        for flag in ("prev_kv", "fragment", "progress_notify"):
            if self.chance(0.4):
                body[flag] = True
        return body

    def request(self):
        kind = self.luck.random()
        if kind < 0.28:
            return "Put", self.put()
        if kind < 0.48:
            return "Range", self.range()
        if kind < 0.56:
            return "DeleteRange", self.delete()
        if kind < 0.76:
            return "Txn", self.transaction()
        if kind < 0.82:
            return "LeaseGrant", {"ID": self.luck.choice(LEASES), "TTL": self.luck.choice([500, 1000])}
        if kind < 0.85:
            return "LeaseRevoke", {"ID": self.luck.choice(LEASES)}
        if kind < 0.88:
            return "LeaseTimeToLive", {"ID": self.luck.choice(LEASES), "keys": self.chance(0.7)}
        if kind < 0.89:
            return "LeaseLeases", {}
        if kind < 0.91:
            return "Compact", {"revision": self.revision()}
        if kind < 0.98:
            return "Watch", self.watch()
        return "Cancel", self.luck.randint(0, 3)


def placed(value, base):
    """Relative revisions made those of this run."""
    if isinstance(value, tuple):
        return base + value[1]
    if isinstance(value, dict):
        return {k: placed(v, base) for k, v in value.items()}
    return [placed(v, base) for v in value] if isinstance(value, list) else value


# Running them

class Run:
    """One case on a server that others have used: it is emptied first."""

    def __init__(self, server):
        self.server, self.channel = server, server.channel()
        self.empty()
        self.model = Model(self.base, self.base, server.is_polder)
        self.watchers, self.stream = [], None

    def empty(self):
        for lease in self.channel.call("LeaseLeases").get("leases", []):
            self.channel.call("LeaseRevoke", {"ID": lease["ID"]})
        self.channel.call("DeleteRange", {"key": "\0", "range_end": "\0"})
        # One put and one deletion: there is something to compact, whatever came before.
        self.channel.call("Put", {"key": "a"})
        self.base = self.channel.call("DeleteRange", {"key": "a"})["header"]["revision"]
        self.channel.call("Compact", {"revision": self.base})

    def all(self, requests):
        try:
            for request in requests:
                self.one(*request)
            self.check_watchers()
        finally:
            if self.stream:
                self.stream.close()

    def one(self, kind, body):
        body = placed(body, self.base)
        if kind == "Watch" and body.get("start_revision") == self.model.compacted:
            # Deletions at that revision are gone sooner or later.
            body["start_revision"] += 1
        if kind == "Watch":
            return self.watch(body)
        if kind == "Cancel":
            return self.cancel(body)
        if kind == "Txn" and self.server.is_polder:
            self.clamp(body)
        if kind == "Compact":
            # What a compaction takes from watchers depends on how far they are.
            self.check_watchers()
        try:
            wanted = self.expected(kind, body)
        except Refused as refusal:
            wanted = refusal.error
        try:
            # The server may have had to learn of what was compacted.
            found = self.channel.call(kind, body)
        except Failed as failure:
            found = (failure.code, failure.details)
        found, wanted = self.comparable(kind, found), self.comparable(kind, wanted)
        if found != wanted:
            raise Difference(f"{kind} {body}\n  answers  {found}\n  expected {wanted}")

    def clamp(self, transaction):
        """What a transaction has written itself is above every bound to Polder, lower or upper, also above
        those that lie in the future: its revision is not known yet when the bound is looked at."""
        for operation in transaction["success"] + transaction["failure"]:
            (kind, inner), = operation.items()
            if kind == "request_txn":
                self.clamp(inner)
            for bound in ("max_mod_revision", "max_create_revision"):
                if bound in inner:
                    inner[bound] = min(inner[bound], self.model.revision)
            for bound in ("min_mod_revision", "min_create_revision"):
                if bound in inner:
                    inner[bound] = min(inner[bound], self.model.revision + 1)

    def expected(self, kind, body):
        model = self.model
        if kind in ("Put", "Range", "DeleteRange", "Txn"):
            return model.execute((kind, body))
        return {"LeaseGrant": model.grant, "LeaseRevoke": model.revoke, "Compact": model.compact,
                "LeaseTimeToLive": model.time_to_live,
                "LeaseLeases": lambda _: model.list_leases()}[kind](body)

    def comparable(self, kind, answer):
        if isinstance(answer, tuple):
            return answer
        answer = dict(answer)
        revision = answer.get("header", {}).get("revision")
        if kind == "LeaseRevoke" and self.server.is_polder and revision == self.model.revision + 1:
            # The end of a lease that had keys once takes a revision (docs/etcd-compatibility.md).
            self.model.revision += 1
        if kind == "LeaseRevoke" and self.server.is_polder:
            revision = self.model.revision
        answer["header"] = revision
        if kind == "LeaseTimeToLive":
            answer["keys"] = sorted(answer.get("keys", []))
            if answer.get("TTL", 0) != -1:
                answer["TTL"] = "some"
        if kind == "LeaseLeases":
            answer["leases"] = sorted(x["ID"] for x in answer.get("leases", []))
        if kind == "Txn":
            answer["responses"] = [self.inner(r) for r in answer.get("responses", [])]
        return answer

    def inner(self, response):
        (kind, body), = response.items()
        body = dict(body)
        if kind == "response_txn":
            body.pop("header", None)
            body["responses"] = [self.inner(r) for r in body.get("responses", [])]
        else:
            body["header"] = body.get("header", {}).get("revision")
        return {kind: body}

    # Watches: all on one stream.

    def watch(self, body):
        if self.stream is None:
            self.stream = self.channel.stream("/etcdserverpb.Watch/Watch")
        self.stream.send({"create_request": body})
        if body.get("range_end", "") not in ("", "\0") and body["range_end"] <= body["key"]:
            refused = self.take(lambda m: m.get("created"))
            if refused.get("watch_id") != -1 or not refused.get("canceled"):
                raise Difference(f"a watch of an empty range is told {refused}")
            return
        model, start = self.model, body.get("start_revision", 0)
        number = len(self.watchers)
        watcher = {
            "id": number, "key": body["key"], "end": body.get("range_end", ""),
            "start": start or model.revision + 1, "filters": body.get("filters", []),
            "prev": body.get("prev_kv", False), "compacted": model.compacted, "told": [], "over": False}
        self.watchers.append(watcher)
        created = self.take(lambda m: m.get("created"))
        if created.get("watch_id", 0) != number:
            raise Difference(f"watch {number} is called {created.get('watch_id', 0)}")
        if 0 < start < model.compacted:
            ended = self.take(lambda m: m.get("canceled") and m.get("watch_id", 0) == number)
            if ended.get("compact_revision") != model.compacted:
                raise Difference(f"a watch from {start} is told {ended}, compacted is {model.compacted}")
            watcher["over"] = True

    def cancel(self, which):
        alive = [w for w in self.watchers if not w["over"]]
        if not alive:
            return
        self.check_watchers()
        watcher = alive[which % len(alive)]
        self.stream.send({"cancel_request": {"watch_id": watcher["id"]}})
        self.take(lambda m: m.get("canceled") and m.get("watch_id", 0) == watcher["id"])
        watcher["over"] = True

    def take(self, wanted, seconds=20):
        """The next message that `wanted` likes; events on the way are noted."""
        end = time.time() + seconds
        while time.time() < end:
            message = self.stream.next(1)
            if isinstance(message, Failed):
                raise Difference(f"the watch stream ended: {message}")
            if message is None:
                continue
            for event in message.get("events", []):
                self.watchers[message.get("watch_id", 0)]["told"].append(event)
            if wanted(message):
                return message
        raise Difference("a watch stream says nothing any more")

    def check_watchers(self):
        for watcher in self.watchers:
            if watcher["over"]:
                continue
            wanted = self.model.events(watcher)
            while len(watcher["told"]) < len(wanted):
                try:
                    self.take(lambda m: m.get("events"))
                except Difference as difference:
                    raise Difference(
                        f"{difference}; watcher {watcher}\n  has not been told "
                        f"{wanted[len(watcher['told']):]}") from None
            if watcher["told"] != wanted:
                raise Difference(f"watcher {watcher}\n  expected {wanted}")


def attempt(server, requests):
    """The difference that they show, or None."""
    try:
        Run(server).all(requests)
    except Difference as difference:
        return str(difference)
    return None


def shrunk(server, requests, tries=250):
    """Fewer requests that still show a difference."""
    part = max(1, len(requests) // 2)
    while part:
        at = 0
        while at < len(requests) and tries:
            tries -= 1
            fewer = requests[:at] + requests[at + part:]
            if fewer and attempt(server, fewer):
                requests = fewer
            else:
                at += part
        part //= 2
    return requests


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--polder")
    parser.add_argument("--etcd")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--cases", type=int, default=1 << 30)
    parser.add_argument("--length", type=int, default=60)
    parser.add_argument("--port", type=int, default=27100 + os.getpid() % 500 * 4)
    options = parser.parse_args()
    if not (options.polder or options.etcd):
        raise SystemExit("--polder or --etcd")
    program = [options.etcd] if options.etcd else [os.path.abspath(options.polder), "etcd"]
    server = Server("model", program, Ports(options.port), nodes=options.nodes)
    began, cases, requests = time.time(), 0, 0
    try:
        while cases < options.cases and time.time() - began < options.seconds:
            seed = options.seed + cases
            maker = Maker(random.Random(seed))
            case = [maker.request() for _ in range(options.length)]
            difference = attempt(server, case)
            if difference:
                print(f"seed {seed}: {difference}\nshrinking ...", flush=True)
                case = shrunk(server, case)
                print(f"{len(case)} requests show it (revisions count from the beginning):")
                for request in case:
                    print("  ", *request)
                print(attempt(server, case) or "(not every time)")
                print(f"repeat: {sys.argv[0]} {'--etcd' if options.etcd else '--polder'} {program[0]} "
                      f"--seed {seed} --cases 1 --length {options.length}")
                sys.exit(1)
            cases, requests = cases + 1, requests + len(case)
    finally:
        server.remove()
    print(f"model, {options.nodes} node(s): {cases} cases, {requests} requests in "
          f"{time.time() - began:.0f} s from seed {options.seed}, no difference")


if __name__ == "__main__":
    main()
