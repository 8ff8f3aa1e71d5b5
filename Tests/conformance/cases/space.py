"""History that goes by itself, quotas and their alarms: each on servers of its own."""
import os, time

from harness import ANY, add, case
from cases.ops import *


@case(essential=False, alone=True, gateway=False,
      flags=["--auto-compaction-mode", "periodic", "--auto-compaction-retention", "1s"])
def auto_compaction_of_a_period(t):
    t.put("a", "1")
    for _ in range(25):
        time.sleep(0.1)
        t.put("a", "2", quiet=True)
    end = time.time() + 10
    while time.time() < end:
        try:
            t.channel().call("Range", {"key": "a", "revision": t.r + 1})
        except Exception:
            break
        time.sleep(0.2)
    t.get("a", revision=t.r + 1)
    t.get("a")
    t.get("a", revision=t.r + 26)


@case(essential=False, alone=True, gateway=False,
      flags=["--auto-compaction-mode", "periodic", "--auto-compaction-retention", "1h"])
def auto_compaction_waits_for_a_whole_period(t):
    t.put("a", "1")
    t.put("a", "2")
    time.sleep(1.5)
    t.get("a", revision=t.r + 1)


def fill(t, most=200):
    """Until it is full; the text of the refusal."""
    for i in range(most):
        try:
            t.channel().call("Put", {"key": f"k{i:04}", "value": os.urandom(400_000)}, timeout=20)
        except Exception as refused:
            return getattr(refused, "details", str(refused))
    return f"never full after {most} puts"


QUOTA = ["--quota-backend-bytes", str(24 << 20)]


@case(essential=False, alone=True, gateway=False, spread=False, flags=QUOTA, nodes=1)
def quota(t):
    t.record("refused with", fill(t))
    t.until("Alarm", ready=lambda answer: answer.get("alarms"), seconds=20)
    # How many writes were taken before is a matter of time: so are the headers' revisions.
    for label, request in (("alarms", {}), ("alarms of another kind", {"alarm": "CORRUPT"})):
        alarms = t.call("Alarm", request, quiet=True)
        t.record(label, [a.get("alarm") for a in (alarms or {}).get("alarms", [])])
    for label, name, request in (
            ("put", "Put", {"key": "a"}), ("grant", "LeaseGrant", {"TTL": 60}),
            ("txn that puts", "Txn", {"success": [P("a", "1")]}),
            ("txn that could put", "Txn", {"compare": [NO], "success": [P("a", "1")]})):
        t.call(name, request, label=label)
    for label, name, request in (
            ("get", "Range", {"key": "k0000", "count_only": True}),
            ("delete", "DeleteRange", {"key": "k0000"})):
        # (etcd may refuse a transaction that only deletes: it looks at the size once more.)
        answer = t.call(name, request, quiet=True)
        t.record(label, answer is not None)
    status = t.call("Status", quiet=True)
    t.record("quota", status.get("dbSizeQuota", 24 << 20))
    t.record("alarm in Status", any("NOSPACE" in e for e in status.get("errors", [])))


def quota_clears_by_itself(t):
    fill(t)
    t.until("DeleteRange", {"key": "k", "range_end": "l"})
    now = t.until("Range", {"key": "a"})["header"]["revision"]
    t.compact(now)
    t.record("writes are taken again", t.until("Put", {"key": "a", "value": "1"}) is not None)
    t.call("Alarm")


add("space.quota_clears_by_itself", quota_clears_by_itself, essential=False, alone=True, gateway=False,
    spread=False, flags=QUOTA, expected=[
        ("Compact", {"header": {k: ANY for k in ("cluster_id", "member_id", "revision", "raft_term")}}),
        ("writes are taken again", True),
        ("Alarm", {"header": {k: ANY for k in ("cluster_id", "member_id", "revision", "raft_term")}})])
