"""Cluster and Maintenance, as far as they leave the server as it was."""
import time

from harness import add, case
from cases.ops import *


def sized(answer):
    """The count of members is the topology's, their ids and URLs are the server's."""
    if answer:
        for member in answer.get("members", []):
            for name in ("ID", "clientURLs", "peerURLs"):
                member[name] = bool(member.get(name))
        answer.get("members", []).sort(key=lambda m: m.get("name", ""))
    return answer


@case
def member_list(t):
    for request in ({}, {"linearizable": True}):
        t.record("members", sized(t.call("MemberList", request, quiet=True)))


@case(essential=False)
def member_errors(t):
    t.call("MemberRemove", {"ID": 12345})
    t.call("MemberAdd", {"peerURLs": ["rubbish"]})
    t.call("MemberAdd", {"peerURLs": []})
    t.call("MemberAdd", {"peerURLs": ["ftp://127.0.0.1:1"]})
    # etcd drops one change behind another that it is not done with, though it has answered it; and its
    # members must have been connected for five seconds.
    time.sleep(5.5 if len(t.server.names) > 1 else 0.5)
    t.call("MemberAdd", {"peerURLs": [next(iter(t.server.peers.values()))]})


@case(spread=False)
def status(t):
    answer = t.call("Status", quiet=True)
    t.record("fields", {k: True for k in answer if k != "errors"})
    t.record("errors", answer.get("errors", []))
    t.record("leader is a member", answer["leader"] != 0)
    t.record("revision", {"revision": answer["header"].get("revision")})
    version = answer["version"].split(".")
    t.record("version has three numbers", len(version) == 3 and all(v.isdigit() for v in version))


# (3.5.1's gateway has no path for HashKV.)
@case(spread=False, gateway=False)
def hash_kv(t):
    t.fill("a", "b")
    one = t.call("HashKV", {"revision": t.r + 1})
    two = t.call("HashKV", {"revision": t.r + 2})
    now = t.call("HashKV")
    t.record("differ", one["hash"] != two["hash"])
    t.record("0 is now", now["hash"] == two["hash"])
    t.call("HashKV", {"revision": t.r + 100})
    t.call("HashKV", {"revision": -1})
    t.compact(t.r + 2)
    t.call("HashKV", {"revision": t.r + 1})
    t.call("HashKV", {"revision": t.r + 2})
    t.call("Hash")


@case(spread=False)
def alarms(t):
    t.call("Alarm")
    t.call("Alarm", {"alarm": "NOSPACE"})
    t.call("Alarm", {"action": "DEACTIVATE", "alarm": "NOSPACE"})
    t.call("Alarm", {"action": "DEACTIVATE"})
    t.call("Alarm", {"action": "DEACTIVATE", "alarm": "NOSPACE", "memberID": 5})


@case(spread=False)
def alarm_nospace_by_hand(t):
    """What etcd refuses while it thinks that it is full."""
    t.call("Put", {"key": "a", "value": "1"}, quiet=True)
    t.call("Alarm", {"action": "ACTIVATE", "alarm": "NOSPACE", "memberID": 7})
    t.call("Alarm")
    t.call("Alarm", {"alarm": "NOSPACE"})
    t.call("Alarm", {"alarm": "CORRUPT"})
    status = t.call("Status", quiet=True)
    t.record("errors of Status", status.get("errors"))
    t.put("a", "2")
    t.get("a")
    t.txn([], [P("b", "1")])
    t.txn([], [G("a")])
    t.txn([NO], [P("b", "1")], [])
    t.call("LeaseGrant", {"TTL": 60, "ID": 9})
    t.delete("a")
    t.txn([], [D("a")])
    t.compact(t.r + 1)
    t.call("Alarm", {"action": "DEACTIVATE", "alarm": "NOSPACE", "memberID": 7})
    t.call("Alarm")
    t.put("a", "3")


@case(spread=False)
def alarm_corrupt_by_hand(t):
    """What etcd refuses while it is told that its data is damaged. Keep-alives and reads go on."""
    t.call("Put", {"key": "a", "value": "1"}, quiet=True)
    t.call("LeaseGrant", {"TTL": 60, "ID": 9}, quiet=True)
    t.call("Alarm", {"action": "ACTIVATE", "alarm": "CORRUPT", "memberID": 7})
    t.call("Alarm", {"action": "ACTIVATE", "alarm": "CORRUPT", "memberID": 7})
    t.call("Alarm")
    t.call("Alarm", {"alarm": "NOSPACE"})
    status = t.call("Status", quiet=True)
    t.record("errors of Status", status.get("errors"))
    t.put("a", "2")
    t.get("a")
    t.get("a", serializable=True)
    t.txn([], [P("b", "1")])
    t.txn([], [G("a")])
    t.txn([NO], [P("b", "1")], [])
    t.delete("a")
    t.compact(t.r + 1)
    t.call("LeaseGrant", {"TTL": 60, "ID": 10})
    t.call("LeaseTimeToLive", {"ID": 9}, quiet=True)
    t.call("LeaseRevoke", {"ID": 9})
    t.call("Alarm", {"action": "DEACTIVATE", "alarm": "CORRUPT", "memberID": 7})
    t.call("Alarm")
    t.put("a", "3")
    t.call("LeaseRevoke", {"ID": 9})


@case(spread=False)
def defragment(t):
    t.fill("a")
    t.call("Defragment")
    t.get("a")


@case(nodes=1)
def move_leader(t):
    t.call("MoveLeader", {"targetID": 12345})
    t.call("MoveLeader", {})


@case(nodes=1)
def move_leader_to_itself(t):
    leader = t.call("Status", quiet=True)["leader"]
    answer = t.call("MoveLeader", {"targetID": leader}, quiet=True)
    t.record("accepted", answer is not None)
    t.record("has a header", "header" in (answer or {}))


@case(spread=False)
def downgrade(t):
    for action in ("VALIDATE", "ENABLE", "CANCEL"):
        for version in ("", "rubbish", "3", "2.0.0", "9.9.9"):
            t.call("Downgrade", {"action": action, "version": version})
    t.call("Downgrade", {"action": 7, "version": "3.5.0"})


@case
def auth_is_off(t):
    t.call("AuthStatus")
    t.call("Authenticate", {"name": "root", "password": "x"})
    t.call("Range", {"key": "a"}, metadata=[("token", "rubbish")])
    t.call("Put", {"key": "a"}, metadata=[("token", "rubbish.5")])


@case(gateway=False)
def health(t):
    t.raw("health", "/grpc.health.v1.Health/Check", [b""])
    t.raw("health of a service", "/grpc.health.v1.Health/Check", [b"\x0a\x03abc"])
    stream = t.stream("/grpc.health.v1.Health/Watch")
    stream.send({})
    t.record("health, watched", stream.next())
