"""Short words for the parts of transactions."""


def P(key, value="", **more):
    return {"request_put": {"key": key, "value": value, **more}}


def G(key, end="", **more):
    return {"request_range": {"key": key, "range_end": end, **more}}


def D(key, end="", **more):
    return {"request_delete_range": {"key": key, "range_end": end, **more}}


def T(compare=(), success=(), failure=()):
    return {"request_txn": {
        "compare": list(compare), "success": list(success), "failure": list(failure)}}


FIELD = {"VERSION": "version", "CREATE": "create_revision", "MOD": "mod_revision", "VALUE": "value",
         "LEASE": "lease"}
RELATION = {"=": 0, ">": 1, "<": 2, "!=": 3}


def C(key, target, relation, operand, end=""):
    return {"key": key, "target": target, "result": RELATION.get(relation, relation),
            FIELD.get(target, "version"): operand, "range_end": end}


ALL = (b"\0", b"\0")
YES, NO = C("no-such-key", "VERSION", "=", 0), C("no-such-key", "VERSION", ">", 0)
