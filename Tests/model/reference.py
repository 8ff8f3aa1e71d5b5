"""etcd's store on two pages: what every request answers, one after the other. Written from etcd's rules,
not from Polder's code; `model.py --etcd` proves it against etcd itself.

Requests and answers are the dictionaries of Tests/conformance/proto.py, defaults left out.
"""

COMPACTED = ("OUT_OF_RANGE", "etcdserver: mvcc: required revision has been compacted")
FUTURE = ("OUT_OF_RANGE", "etcdserver: mvcc: required revision is a future revision")
NO_KEY = ("INVALID_ARGUMENT", "etcdserver: key is not provided")
VALUE_GIVEN = ("INVALID_ARGUMENT", "etcdserver: value is provided")
LEASE_GIVEN = ("INVALID_ARGUMENT", "etcdserver: lease is provided")
KEY_MISSING = ("INVALID_ARGUMENT", "etcdserver: key not found")
TWICE = ("INVALID_ARGUMENT", "etcdserver: duplicate key given in txn request")
NO_LEASE = ("NOT_FOUND", "etcdserver: requested lease not found")
LEASE_EXISTS = ("FAILED_PRECONDITION", "etcdserver: lease already exists")


class Refused(Exception):
    def __init__(self, error):
        super().__init__(error[1])
        self.error = error


def within(key, start, end):
    if not end:
        return key == start
    return key >= start and (end == "\0" or key < end)


def sparse(**fields):
    return {k: v for k, v in fields.items() if v not in (0, "", False, None, [])}


class Model:
    """`revision` and `compacted`: where the server stands; it has no keys and no leases."""

    def __init__(self, revision, compacted, is_polder=False):
        self.revision, self.compacted = revision, compacted
        # To Polder a put is a transaction of one operation, also where two things are wrong with it.
        self.is_polder = is_polder
        # Every version of every key: (revision, row); a row of None is a deletion.
        self.versions, self.leases = {}, {}
        # What watchers are told: (revision, [(key, row, previous row)]).
        self.log = []

    # Reading

    def row(self, key, revision=None):
        revision = self.revision if revision is None else revision
        found = None
        for at, row in self.versions.get(key, ()):
            if at <= revision:
                found = row
        return found

    def live(self, start, end, view, more=()):
        keys = sorted({*self.versions, *more})
        return [row for key in keys if within(key, start, end) for row in [view(key)] if row]

    def check_range(self, request):
        if not request.get("key"):
            raise Refused(NO_KEY)

    def check_revision(self, request):
        if request.get("revision", 0) > self.revision:
            raise Refused(FUTURE)
        if 0 < request.get("revision", 0) < self.compacted:
            raise Refused(COMPACTED)

    def range(self, request, view=None, more=()):
        """`view` and `more`: what a transaction has written so far."""
        at = request.get("revision", 0)
        if at or view is None:
            view = lambda key: self.row(key, at or self.revision)
        rows = self.live(request["key"], request.get("range_end", ""), view, more)
        count = len(rows)
        if request.get("count_only"):
            return sparse(count=count)
        limit = request.get("limit", 0)
        order = request.get("sort_order", "NONE")
        target = request.get("sort_target", "KEY")
        bounds = [request.get(name, 0) for name in (
            "min_mod_revision", "max_mod_revision", "min_create_revision", "max_create_revision")]
        # Without an order or a bound no more rows are looked at than are wanted, and one.
        if order == "NONE" and not any(bounds) and limit:
            rows = rows[:limit + 1]
        for bound, name, keep in zip(
                bounds, ("mod_revision", "mod_revision", "create_revision", "create_revision"),
                (lambda v, b: v >= b, lambda v, b: v <= b) * 2):
            if bound:
                rows = [r for r in rows if keep(r[name], bound)]
        if order == "NONE" and target != "KEY":
            order = "ASCEND"
        field = {"KEY": "key", "VERSION": "version", "CREATE": "create_revision", "MOD": "mod_revision",
                 "VALUE": "value"}[target]
        if order != "NONE":
            rows = sorted(rows, key=lambda r: r.get(field, ""), reverse=order == "DESCEND")
        more = bool(limit) and len(rows) > limit
        rows = rows[:limit] if limit else rows
        if request.get("keys_only"):
            rows = [{k: v for k, v in r.items() if k != "value"} for r in rows]
        return sparse(kvs=rows, more=more, count=count)

    # Transactions

    def execute(self, request):
        """Of any request of KV: the answer."""
        kind, body = request
        if kind == "Range":
            self.check_range(body)
            self.check_revision(body)
            return dict(self.range(body), header={"revision": self.revision})
        if kind == "Txn":
            self.check_shape(body)
            self.check_twice(body)
            return self.commit(lambda write: write.transaction(body))
        self.check_operation({f"request_{'put' if kind == 'Put' else 'delete_range'}": body})
        if kind == "Put":
            return self.commit(lambda write: write.put(body))
        return self.commit(lambda write: write.delete(body))

    def commit(self, work):
        write = Write(self)
        answer = work(write)
        if write.changes:
            self.revision += 1
            events = []
            for key, row, previous in write.changes:
                self.versions.setdefault(key, []).append((self.revision, row))
                events.append((key, row, previous))
                self.attach(key, (previous or {}).get("lease", 0), (row or {}).get("lease", 0))
            self.log.append((self.revision, events))
        answer["header"] = {"revision": self.revision}
        return answer

    def attach(self, key, before, after):
        if before in self.leases:
            self.leases[before]["keys"].discard(key)
        if after in self.leases:
            self.leases[after]["keys"].add(key)

    def check_operation(self, operation):
        (kind, body), = operation.items()
        if kind == "request_txn":
            return self.check_shape(body)
        if not body.get("key"):
            raise Refused(NO_KEY)
        if kind == "request_put":
            if body.get("ignore_value") and body.get("value"):
                raise Refused(VALUE_GIVEN)
            if body.get("ignore_lease") and body.get("lease"):
                raise Refused(LEASE_GIVEN)

    def check_shape(self, body):
        for operation in body.get("success", []) + body.get("failure", []):
            self.check_operation(operation)

    def check_twice(self, body):
        self.intervals(body.get("success", []))
        self.intervals(body.get("failure", []))

    def intervals(self, operations):
        """The keys put and the ranges deleted on any path; no key may be written twice on one."""
        puts, deletes = set(), [
            (o["request_delete_range"]["key"], o["request_delete_range"].get("range_end", ""))
            for o in operations if "request_delete_range" in o]

        def check(key):
            if any(within(key, *d) for d in deletes):
                raise Refused(TWICE)

        for operation in operations:
            if "request_txn" not in operation:
                continue
            then, then_deletes = self.intervals(operation["request_txn"].get("success", []))
            other, other_deletes = self.intervals(operation["request_txn"].get("failure", []))
            for key in then:
                if key in puts:
                    raise Refused(TWICE)
                check(key)
            for key in other:
                if key in puts:
                    raise Refused(TWICE)
                check(key)
            puts |= then | other
            deletes += then_deletes + other_deletes
        for operation in operations:
            if "request_put" in operation:
                key = operation["request_put"]["key"]
                if key in puts:
                    raise Refused(TWICE)
                check(key)
                puts.add(key)
        return puts, deletes

    # Leases and compaction

    def grant(self, request):
        if request["ID"] in self.leases:
            raise Refused(LEASE_EXISTS)
        self.leases[request["ID"]] = {"ttl": request["TTL"], "keys": set()}
        return {"header": {"revision": self.revision}, "ID": request["ID"], "TTL": request["TTL"]}

    def revoke(self, request):
        lease = self.leases.get(request["ID"])
        if lease is None:
            raise Refused(NO_LEASE)

        def work(write):
            for key in sorted(lease["keys"]):
                write.changes.append((key, None, write.view(key)))
            return {}
        answer = self.commit(work)
        del self.leases[request["ID"]]
        return answer

    def time_to_live(self, request):
        lease = self.leases.get(request["ID"])
        header = {"revision": self.revision}
        if lease is None:
            return {"header": header, "ID": request["ID"], "TTL": -1}
        keys = sorted(lease["keys"]) if request.get("keys") else []
        return dict(sparse(keys=keys), header=header, ID=request["ID"], TTL="some", grantedTTL=lease["ttl"])

    def list_leases(self):
        leases = [{"ID": i} for i in sorted(self.leases)]
        return dict(sparse(leases=leases), header={"revision": self.revision})

    def compact(self, request):
        if request["revision"] <= self.compacted:
            raise Refused(COMPACTED)
        if request["revision"] > self.revision:
            raise Refused(FUTURE)
        self.compacted = request["revision"]
        return {"header": {"revision": self.revision}}

    # Watches

    def events(self, watcher):
        """All that `watcher` has been told by now."""
        found = []
        for revision, events in self.log:
            if revision < watcher["start"]:
                continue
            for key, row, previous in events:
                if not within(key, watcher["key"], watcher["end"]):
                    continue
                if ("NOPUT" if row else "NODELETE") in watcher["filters"]:
                    continue
                event = {"kv": row or {"key": key, "mod_revision": revision}}
                if not row:
                    event["type"] = "DELETE"
                # What came before an event at the compaction's own revision is gone already.
                if watcher["prev"] and previous and revision > watcher["compacted"]:
                    event["prev_kv"] = previous
                found.append(event)
        return found


class Write:
    """A transaction under way: what it reads are its own writes, what it compares is from before."""

    def __init__(self, model):
        self.model, self.changes = model, []

    def view(self, key):
        for changed, row, _ in reversed(self.changes):
            if changed == key:
                return row
        return self.model.row(key)

    @property
    def keys(self):
        return [key for key, _, _ in self.changes]

    @property
    def at(self):
        return self.model.revision + (1 if self.changes else 0)

    def transaction(self, body):
        # Puts first, then ranges, each on the whole path that will be taken.
        self.check(body, "request_put", self.check_put)
        self.check(body, "request_range", self.model.check_revision)
        return self.run(body)

    def passes(self, body):
        return all(self.holds(c) for c in body.get("compare", []))

    def check(self, body, kind, checks):
        """Before anything of it is done."""
        for operation in body.get("success" if self.passes(body) else "failure", []):
            if kind in operation:
                checks(operation[kind])
            elif "request_txn" in operation:
                self.check(operation["request_txn"], kind, checks)

    def check_put(self, body, alone=False):
        missing = self.model.row(body["key"]) is None
        problems = [
            ((body.get("ignore_value") or body.get("ignore_lease")) and missing, KEY_MISSING),
            (body.get("lease", 0) and body["lease"] not in self.model.leases, NO_LEASE)]
        # A put alone looks for its lease first, one in a transaction for its key.
        for is_wrong, error in reversed(problems) if alone else problems:
            if is_wrong:
                raise Refused(error)

    def run(self, body):
        # Conditions are those of the beginning, also in nested transactions.
        succeeded = self.passes(body)
        responses = []
        for operation in body.get("success" if succeeded else "failure", []):
            (kind, inner), = operation.items()
            if kind == "request_range":
                answer = dict(self.model.range(inner, self.view, self.keys), header={"revision": self.at})
                responses.append({"response_range": answer})
            elif kind == "request_put":
                responses.append({"response_put": dict(self.write(inner), header={"revision": self.at})})
            elif kind == "request_delete_range":
                answer = dict(self.delete(inner), header={"revision": self.at})
                responses.append({"response_delete_range": answer})
            else:
                responses.append({"response_txn": self.run(inner)})
        return sparse(succeeded=succeeded, responses=responses)

    def put(self, body):
        self.check_put(body, alone=not self.model.is_polder)
        return self.write(body)

    def write(self, body):
        old, revision = self.view(body["key"]), self.model.revision + 1
        row = sparse(
            key=body["key"], mod_revision=revision,
            create_revision=old["create_revision"] if old else revision,
            version=(old["version"] if old else 0) + 1,
            value=(old or {}).get("value", "") if body.get("ignore_value") else body.get("value", ""),
            lease=(old or {}).get("lease", 0) if body.get("ignore_lease") else body.get("lease", 0))
        self.changes.append((body["key"], row, old))
        return {"prev_kv": old} if body.get("prev_kv") and old else {}

    def delete(self, body):
        rows = self.model.live(body["key"], body.get("range_end", ""), self.view, self.keys)
        for row in rows:
            self.changes.append((row["key"], None, row))
        return sparse(deleted=len(rows), prev_kvs=rows if body.get("prev_kv") else [])

    def holds(self, compare):
        model = self.model
        rows = model.live(compare["key"], compare.get("range_end", ""), model.row)
        target = compare.get("target", "VERSION")
        name = {"VERSION": "version", "CREATE": "create_revision", "MOD": "mod_revision", "VALUE": "value",
                "LEASE": "lease"}[target]
        wanted = compare.get(name, "" if name == "value" else 0)
        if not rows:
            if name == "value":
                return False
            rows = [{}]
        relate = {"EQUAL": lambda a, b: a == b, "NOT_EQUAL": lambda a, b: a != b,
                  "GREATER": lambda a, b: a > b, "LESS": lambda a, b: a < b}
        relation = relate[compare.get("result", "EQUAL")]
        return all(relation(r.get(name, "" if name == "value" else 0), wanted) for r in rows)
