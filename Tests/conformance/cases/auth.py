"""Users, roles and permissions; each case on servers of its own, since it turns authentication on."""
from harness import case
from cases.ops import *


@case(alone=True, essential=False, spread=False)
def users_and_roles(t):
    t.call("UserList")
    t.call("RoleList")
    t.call("UserAdd", {"name": "ann", "password": "a"})
    t.call("UserAdd", {"name": "ann", "password": "a"})
    t.call("UserAdd", {"name": "", "password": "a"})
    t.call("UserAdd", {"name": "nopass", "options": {"no_password": True}})
    t.call("RoleAdd", {"name": "reader"})
    t.call("RoleAdd", {"name": "reader"})
    t.call("RoleAdd", {"name": ""})
    t.call("UserGrantRole", {"user": "ann", "role": "reader"})
    t.call("UserGrantRole", {"user": "ann", "role": "none"})
    t.call("UserGrantRole", {"user": "none", "role": "reader"})
    t.call("UserGet", {"name": "ann"})
    t.call("UserGet", {"name": "none"})
    t.call("UserRevokeRole", {"name": "ann", "role": "none"})
    t.call("UserRevokeRole", {"name": "ann", "role": "reader"})
    t.call("UserRevokeRole", {"name": "ann", "role": "reader"})
    t.call("UserChangePassword", {"name": "ann", "password": "b"})
    t.call("UserChangePassword", {"name": "none", "password": "b"})
    t.call("UserList")
    t.call("RoleList")
    t.call("UserDelete", {"name": "ann"})
    t.call("UserDelete", {"name": "ann"})
    t.call("RoleDelete", {"role": "reader"})
    t.call("RoleDelete", {"role": "reader"})


@case(alone=True, essential=False, spread=False)
def permissions_of_roles(t):
    t.call("RoleAdd", {"name": "r"})
    for kind, key, end in (("READ", "a", ""), ("WRITE", "a", ""), ("READWRITE", "b", "c"),
                           ("READ", "d", b"\0"), ("READ", b"\0", b"\0")):
        t.call("RoleGrantPermission",
               {"name": "r", "perm": {"permType": kind, "key": key, "range_end": end}})
    t.call("RoleGrantPermission", {"name": "none", "perm": {"permType": 0, "key": "a"}})
    t.call("RoleGet", {"role": "r"})
    t.call("RoleGet", {"role": "none"})
    t.call("RoleRevokePermission", {"role": "r", "key": "a"})
    t.call("RoleRevokePermission", {"role": "r", "key": "a"})
    t.call("RoleRevokePermission", {"role": "r", "key": "b", "range_end": "z"})
    t.call("RoleRevokePermission", {"role": "none", "key": "b"})
    t.call("RoleGet", {"role": "r"})


def enable(t):
    """root, and ann who reads [a, c) and writes a."""
    t.call("AuthEnable", label="without root")
    t.call("UserAdd", {"name": "root", "password": "r"}, quiet=True)
    t.call("AuthEnable", label="root without its role")
    for name, request in (
            ("RoleAdd", {"name": "root"}), ("UserGrantRole", {"user": "root", "role": "root"}),
            ("UserAdd", {"name": "ann", "password": "a"}), ("RoleAdd", {"name": "some"}),
            ("RoleGrantPermission",
             {"name": "some", "perm": {"permType": "READ", "key": "a", "range_end": "c"}}),
            ("RoleGrantPermission", {"name": "some", "perm": {"permType": "WRITE", "key": "w"}}),
            ("UserGrantRole", {"user": "ann", "role": "some"})):
        t.call(name, request, quiet=True)
    t.put("a", "1")
    t.put("x", "1")
    t.call("AuthEnable")


def token(t, name, password):
    answer = t.call("Authenticate", {"name": name, "password": password})
    return [("token", answer["token"])] if answer else []


@case(alone=True, essential=False, spread=False)
def permissions_are_checked(t):
    enable(t)
    t.call("Authenticate", {"name": "ann", "password": "wrong"})
    t.call("Authenticate", {"name": "nobody", "password": "a"})
    t.call("Authenticate", {"name": "", "password": ""})
    ann, root = token(t, "ann", "a"), token(t, "root", "r")
    calls = (
        ("Range", {"key": "a"}), ("Range", {"key": "x"}), ("Range", {"key": "a", "range_end": "c"}),
        ("Range", {"key": "a", "range_end": "d"}), ("Range", {"key": "a", "range_end": b"\0"}),
        ("Put", {"key": "w"}), ("Put", {"key": "a"}), ("Put", {"key": "w", "prev_kv": True}),
        ("DeleteRange", {"key": "w"}), ("DeleteRange", {"key": "a"}),
        ("DeleteRange", {"key": "w", "prev_kv": True}),
        ("Txn", {"compare": [C("a", "VERSION", "=", 1)], "success": [G("a"), P("w", "1")]}),
        ("Txn", {"compare": [C("x", "VERSION", "=", 1)], "success": [G("a")]}),
        ("Txn", {"success": [G("x")]}), ("Txn", {"success": [], "failure": [P("a", "1")]}),
        ("UserList", {}), ("RoleList", {}), ("UserGet", {"name": "ann"}), ("UserGet", {"name": "root"}),
        ("UserAdd", {"name": "new", "password": "x"}), ("RoleGet", {"role": "some"}),
        ("RoleGet", {"role": "root"}), ("AuthStatus", {}), ("HashKV", {}), ("Defragment", {}))
    t.call("LeaseGrant", {"TTL": 60, "ID": 5}, metadata=ann)
    t.call("Alarm", {}, metadata=ann)
    for who, metadata in (("ann", ann), ("nobody", []), ("rubbish", [("token", "x.1")])):
        for name, request in calls:
            t.call(name, request, label=f"{who}: {name} {request}", metadata=metadata)
        t.record(f"{who}: Status is answered", t.call("Status", quiet=True, metadata=metadata) is not None)
    t.call("Range", {"key": "x"}, metadata=root)
    t.call("UserDelete", {"name": "root"}, metadata=root)
    t.call("RoleDelete", {"role": "root"}, metadata=root)
    t.call("AuthDisable", metadata=ann)
    t.call("AuthDisable", metadata=root)
    t.call("AuthDisable")
    t.get("x")


@case(alone=True, essential=False, spread=False)
def what_etcd_does_not_check(t):
    """Last, since a write that only one of them takes changes all that follows."""
    enable(t)
    ann = token(t, "ann", "a")
    for who, metadata in (("nobody", []), ("rubbish", [("token", "x.1")])):
        for name, request in (("MemberList", {}), ("Alarm", {}), ("LeaseGrant", {"TTL": 60, "ID": 6})):
            answer = t.call(name, request, label=f"{who}: {name}", metadata=metadata, quiet=True)
            t.record(f"{who}: {name} is answered", answer is not None)
    t.call("Compact", {"revision": t.r + 1}, metadata=ann)
    t.call("Txn", {"success": [T([], [P("a", "1")])]}, label="nested put", metadata=ann)
