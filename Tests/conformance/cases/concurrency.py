"""The Lock and Election services."""
from harness import case
from cases.ops import *


def named(t, answer):
    """Keys end with the lease in hex: masked."""
    if not answer:
        return answer

    def mask(value):
        if isinstance(value, dict):
            return {k: mask(v) for k, v in value.items()}
        if isinstance(value, list):
            return [mask(v) for v in value]
        if isinstance(value, str):
            for lease, name in t.leases.items():
                value = value.replace(f"{lease:x}", name)
        return value
    return mask(answer)


def told(t, name, request, label=None, timeout=6.0):
    answer = t.call(name, request, quiet=True, timeout=timeout)
    t.record(label or name, named(t, answer))
    return answer


@case(essential=False, spread=False)
def lock(t):
    one, two = t.grant(), t.grant()
    first = told(t, "Lock", {"name": "l", "lease": one})
    told(t, "Lock", {"name": "l", "lease": one}, "again")
    waiting = t.stream("Lock")
    waiting.send({"name": "l", "lease": two})
    waiting.half_close()
    t.record("waits", waiting.next(0.4) is None)
    told(t, "Unlock", {"key": first["key"]} if first else {})
    second = waiting.next()
    t.record("second", named(t, second) if isinstance(second, dict) else str(second))
    told(t, "Unlock", {"key": "none"})
    t.call("Lock", {"name": "l", "lease": 424242})
    t.call("LeaseRevoke", {"ID": two})
    t.get("l", "m", count_only=True)


@case(essential=False, spread=False)
def election(t):
    one, two = t.grant(), t.grant()
    t.call("Leader", {"name": "e"})
    won = told(t, "Campaign", {"name": "e", "lease": one, "value": "one"})
    told(t, "Leader", {"name": "e"})
    waiting = t.stream("Campaign")
    waiting.send({"name": "e", "lease": two, "value": "two"})
    waiting.half_close()
    t.record("waits", waiting.next(0.4) is None)
    observed = t.stream("Observe")
    observed.send({"name": "e"})
    observed.half_close()
    t.record("observed", named(t, observed.next()))
    if won:
        told(t, "Proclaim", {"leader": won["leader"], "value": "again"})
        t.record("observed", named(t, observed.next()))
        told(t, "Resign", {"leader": won["leader"]})
        told(t, "Proclaim", {"leader": won["leader"], "value": "late"}, "after resigning")
    second = waiting.next()
    t.record("second", named(t, second) if isinstance(second, dict) else str(second))
    t.record("observed", named(t, observed.next()))
    t.call("Campaign", {"name": "e", "lease": 424242, "value": "x"})
    t.call("Proclaim", {"value": "x"})
    t.call("Resign", {})
