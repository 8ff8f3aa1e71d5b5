"""Disaster recovery with etcd's --force-new-cluster: a region of one out of what one member holds.

Imported by surface.py.
"""
import json, shutil, signal, subprocess, threading, time

from cluster import eventually, free_base_port, run


class Three:
    def __init__(self, e, names):
        self.e, self.names, base = e, names, free_base_port(len(names) + 1)
        self.ports = {n: base + 10 * i for i, n in enumerate([*names, names[0] + "new"])}
        self.cluster = ",".join(f"{n}={self.peer(n)}" for n in names)

    def url(self, name):
        return f"http://127.0.0.1:{self.ports[name]}"

    def peer(self, name):
        return f"http://127.0.0.1:{self.ports[name] + 1}"

    def words(self, name, *more, cluster=None):
        return ["--name", name, "--data-dir", f"{self.e.dir}/{name}.etcd", "--listen-client-urls", self.url(name),
                "--advertise-client-urls", self.url(name), "--listen-peer-urls", self.peer(name),
                "--initial-advertise-peer-urls", self.peer(name), "--initial-cluster", cluster or self.cluster,
                *more]

    def start(self, check):
        for name in self.names:
            self.e.start(name, self.words(name), wait=False)
        for name in self.names:
            check(f"{name} comes up", self.e.said(name, "ready to serve client requests"))


def picture(e, url):
    """Every key with its revisions; what other keys are asked for is a number."""
    answer = e.etcdctl("get", "", "--prefix", "-w", "json", at=url)
    return answer.json.get("kvs", []) if answer.ok else answer


def members(e, url):
    answer = e.etcdctl("member", "list", "-w", "json", at=url)
    return sorted(m.get("name", "") for m in answer.json["members"]) if answer.ok else answer


def whole(check, e):
    print("      --force-new-cluster", flush=True)
    three = Three(e, ["f0", "f1", "f2"])
    three.start(check)
    url = three.url("f0")
    lease = e.etcdctl("lease", "grant", "600", at=url).out.split()[1]
    for i in range(60):
        e.etcdctl("put", f"key/{i % 40}", str(i), *([f"--lease={lease}"] if i % 7 == 0 else []), at=url)
    e.etcdctl("del", "key/3", at=url)
    check("all have it", eventually(lambda: picture(e, three.url("f2")) == picture(e, url)))
    before = picture(e, url)
    revision = e.etcdctl("get", "key/1", "-w", "json", at=url).json["header"]["revision"]
    for name in three.names:
        e.end(name, signal.SIGKILL)
    check("one of three does not serve", not e.start("f0", three.words("f0"), wait=False)
          or not e.etcdctl("get", "key/1", "--command-timeout=2s", at=url).ok)
    e.end("f0", signal.SIGKILL)
    # Cut short: it must be said again.
    e.start("f0", three.words("f0", "--force-new-cluster"), wait=False)
    time.sleep(0.4)
    e.end("f0", signal.SIGKILL)
    check("alone it does", e.start("f0", three.words("f0", "--force-new-cluster")))
    check("what is meant is said", e.said("f0", "becoming a region of one"))
    check("it is the only member", eventually(lambda: members(e, url) == ["f0"]), members(e, url))
    check("nothing is lost", picture(e, url) == before, (picture(e, url), before))
    check("it says when that is written", e.said("f0", "this region is one node's"))
    put = e.etcdctl("put", "new", "1", "-w", "json", at=url)
    check("writes go on", put.ok and put.json["header"]["revision"] == revision + 1, (put, revision))
    left = e.etcdctl("lease", "timetolive", lease, "--keys", at=url)
    check("leases live on", "remaining" in left.out and "key/" in left.out, left)
    check("health is good", eventually(lambda: run(["curl", "-s", url + "/health"]).out == '{"health":"true","reason":""}'))
    e.end("f0", signal.SIGKILL)
    check("and without the flag it starts again", e.start("f0", three.words("f0")))
    check("as it was", members(e, url) == ["f0"] and len(picture(e, url)) == len(before) + 1, members(e, url))
    # One of the old ones comes back.
    e.start("f1", three.words("f1"), wait=False)
    check("an old member serves nobody",
          not e.etcdctl("put", "old", "1", "--command-timeout=3s", at=three.url("f1")).ok)
    check("and changes nothing", e.etcdctl("put", "new", "2", at=url).ok and members(e, url) == ["f0"])
    e.end("f1", signal.SIGKILL)
    shutil.rmtree(f"{e.dir}/f1.etcd")
    # It grows again.
    added = e.etcdctl("member", "add", "f0new", f"--peer-urls={three.peer('f0new')}", at=url)
    check("a member is added", added.ok, added)
    check("and joins", e.start("f0new", three.words(
        "f0new", "--initial-cluster-state", "existing",
        cluster=f"f0={three.peer('f0')},f0new={three.peer('f0new')}")))
    other = three.url("f0new")
    check("both have everything", eventually(
        lambda: members(e, other) == ["f0", "f0new"] and picture(e, other) == picture(e, url)), members(e, other))
    check("the new one writes", e.etcdctl("put", "new", "3", at=other).ok)
    for name in ("f0", "f0new"):
        e.end(name)
    nothing = subprocess.run([e.program, "--data-dir", e.dir + "/none.etcd", "--force-new-cluster"],
                             capture_output=True, text=True, timeout=60)
    check("without data there is nothing to make a cluster of",
          nothing.returncode == 2 and "there is no member's data" in nothing.stderr + nothing.stdout, nothing)


def behind(check, e):
    """The one that is left was frozen while the others went on: its groups stand where they stood, each at
    another place."""
    print("      --force-new-cluster of a member that is behind", flush=True)
    three = Three(e, ["g0", "g1", "g2"])
    three.start(check)
    stop = threading.Event()

    def write(i):
        n = 0
        while not stop.is_set():
            n += 1
            at = three.url(three.names[1 + n % 2])
            puts = "".join(f"put g/{i}/{k} {n}\n" for k in range(6))
            run([e.etcdctl_path, f"--endpoints={at}", "--command-timeout=3s", "txn"], stdin="\n" + puts + "\n\n",
                timeout=4)
    writers = [threading.Thread(target=write, args=(i,), daemon=True) for i in range(4)]
    for writer in writers:
        writer.start()
    time.sleep(2)
    frozen = e.processes["g0"]
    frozen.send_signal(signal.SIGSTOP)
    time.sleep(2)
    for name in ("g1", "g2", "g0"):
        e.end(name, signal.SIGKILL)
    stop.set()
    for writer in writers:
        writer.join(30)
    url = three.url("g0")
    check("it serves alone", e.start("g0", three.words("g0", "--force-new-cluster")))
    check("it is the only member", eventually(lambda: members(e, url) == ["g0"]), members(e, url))
    kvs = picture(e, url)
    check("with what it has", isinstance(kvs, list) and len(kvs) > 0, kvs)
    for i in range(20):
        put = e.etcdctl("put", f"g/after/{i}", "1", at=url)
        if not put.ok:
            break
    check("writes go on", put.ok, put)
    puts = "".join(f"put g/{i}/{k} last\n" for i in range(4) for k in range(6))
    txn = run([e.etcdctl_path, f"--endpoints={url}", "txn"], stdin="\n" + puts + "\n\n")
    check("also over all partitions", "SUCCESS" in txn.out, txn)
    e.end("g0")
    check("it starts again", e.start("g0", three.words("g0")))
    check("with everything", all(e.get(f"g/{i}/{k}", at=url) == "last" for i in range(4) for k in range(6)))
    e.end("g0")


def check_all(check, e):
    whole(check, e)
    behind(check, e)
