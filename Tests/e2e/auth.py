"""Users, roles and permissions as etcdctl sees them, one node beside real etcd and three nodes alone.

Imported by e2e.py; `--only auth` runs this alone.
"""
import os, shutil, signal, subprocess, tempfile, threading, time

from cluster import eventually, free_base_port, run

# (user, words, succeeds, part of the answer). The same on etcd, where it is installed; None instead of
# an outcome: etcd's differs, and ours is in the comment.
SETUP = [
    (None, "auth enable", False, "etcdserver: root user does not exist"),
    (None, "user add root:root-pw", True, "User root created"),
    (None, "user add root:x", False, "etcdserver: user name already exists"),
    (None, "role add app", True, "Role app created"),
    (None, "role add app", False, "etcdserver: role name already exists"),
    (None, "role grant-permission app read a b", True, "Role app updated"),
    (None, "role grant-permission app readwrite k", True, "Role app updated"),
    (None, "role grant-permission app write out/ --prefix", True, "Role app updated"),
    (None, "role grant-permission none read a", False, "etcdserver: role name not found"),
    (None, "role get app", True, "[out/, out0) (prefix out/)"),
    (None, "role revoke-permission app k2", False, "permission is not granted to the role"),
    (None, "user add ann:ann-pw", True, "User ann created"),
    (None, "user add bob:bob-pw", True, "User bob created"),
    (None, "user grant-role ann app", True, "Role app is granted to user ann"),
    (None, "user grant-role ann app", True, "Role app is granted to user ann"),
    (None, "user grant-role ann none", False, "etcdserver: role name not found"),
    (None, "user grant-role none app", False, "etcdserver: user name not found"),
    (None, "user revoke-role bob app", False, "role is not granted to the user"),
    (None, "user get ann", True, "Roles: app"),
    (None, "user list", True, "ann\nbob\nroot"),
    (None, "put secret s", True, "OK"),
    (None, "auth enable", True, "Authentication Enabled"),
]
ENABLED = [
    (None, "auth enable", False, "etcdserver: user name is empty"),
    (None, "put k v", False, "etcdserver: user name is empty"),
    (None, "get k", False, "etcdserver: user name is empty"),
    ("ann:wrong", "get k", False, "authentication failed, invalid user ID or password"),
    ("none:x", "get k", False, "authentication failed, invalid user ID or password"),
    ("ann:ann-pw", "put k v", True, "OK"),
    ("ann:ann-pw", "get k", True, "k\nv"),
    ("ann:ann-pw", "get a b", True, ""),
    ("ann:ann-pw", "get a c", False, "etcdserver: permission denied"),
    ("ann:ann-pw", "get a --from-key", False, "etcdserver: permission denied"),
    ("ann:ann-pw", "get secret", False, "etcdserver: permission denied"),
    ("ann:ann-pw", "put a1 v", False, "etcdserver: permission denied"),
    ("ann:ann-pw", "put out/1 v", True, "OK"),
    ("ann:ann-pw", "get out/1", False, "etcdserver: permission denied"),
    ("ann:ann-pw", "put out/1 v --prev-kv", False, "etcdserver: permission denied"),
    ("ann:ann-pw", "put k w --prev-kv", True, "v"),
    ("ann:ann-pw", "del out/ --prefix", True, "1"),
    ("ann:ann-pw", "del a b", False, "etcdserver: permission denied"),
    ("ann:ann-pw", "user list", False, "etcdserver: permission denied"),
    ("ann:ann-pw", "user get ann", True, "Roles: app"),
    ("ann:ann-pw", "user get bob", False, "etcdserver: permission denied"),
    ("ann:ann-pw", "role get app", True, "Role app"),
    ("ann:ann-pw", "role list", False, "etcdserver: permission denied"),
    ("ann:ann-pw", "auth disable", False, "etcdserver: permission denied"),
    ("ann:ann-pw", "lease grant 100", True, "granted with TTL(100s)"),
    ("ann:ann-pw", "member list", True, "started"),
    ("ann:ann-pw", "alarm list", True, ""),
    ("ann:ann-pw", "endpoint status", True, ", 3."),
    # Ours: permission denied; etcd lets everybody.
    ("ann:ann-pw", "compaction 1", None, "etcdserver: permission denied"),
    ("bob:bob-pw", "get a1", False, "etcdserver: permission denied"),
    ("root:root-pw", "user delete root", False, "etcdserver: invalid auth management"),
    ("root:root-pw", "user revoke-role root root", False, "etcdserver: invalid auth management"),
    ("root:root-pw", "get secret", True, "secret\ns"),
    ("root:root-pw", "user passwd --interactive=false ann", True, "Password updated"),
    ("ann:ann-pw", "get k", False, "authentication failed, invalid user ID or password"),
    ("ann:new-pw", "get k", True, "k\nw"),
    ("root:root-pw", "role delete app", True, "Role app deleted"),
    ("ann:new-pw", "get k", False, "etcdserver: permission denied"),
    ("root:root-pw", "user delete bob", True, "User bob deleted"),
    ("root:root-pw", "user delete bob", False, "etcdserver: user name not found"),
    ("root:root-pw", "auth disable", True, "Authentication Disabled"),
    (None, "get k", True, "k\nw"),
    ("root:root-pw", "get k", True, "k\nw"),
    (None, "auth disable", True, "Authentication Disabled"),
    (None, "user delete root", True, "User root deleted"),
]


class Servers:
    """Processes that take etcd's flags."""

    def __init__(self, program):
        self.program, self.dir, self.processes = program, tempfile.mkdtemp(prefix="polder-auth-"), {}

    def start(self, name, base, peers, flags=(), scheme="http"):
        client, peer = f"{scheme}://127.0.0.1:{base}", f"http://127.0.0.1:{base + 1}"
        with open(f"{self.dir}/{name}.log", "ab") as log:
            self.processes[name] = subprocess.Popen(
                [*self.program, "--name", name, "--data-dir", f"{self.dir}/{name}", "--bcrypt-cost=4",
                 "--listen-client-urls", client, "--advertise-client-urls", client,
                 "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
                 "--initial-cluster", ",".join(f"{n}={p}" for n, p in peers.items()), *flags],
                stdout=log, stderr=log)
        return client

    def kill(self, name):
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def remove(self):
        for name in list(self.processes):
            self.kill(name)
        shutil.rmtree(self.dir, ignore_errors=True)


class Control:
    def __init__(self, program, endpoints, flags=()):
        self.program, self.endpoints, self.flags = program, endpoints, list(flags)

    def __call__(self, words, user=None, at=None, stdin=None, timeout=30):
        words = words.split() if isinstance(words, str) else words
        return run([self.program, f"--endpoints={at or self.endpoints}", "--command-timeout=20s",
                    *self.flags, *([f"--user={user}"] if user else []), *words],
                   stdin=stdin, timeout=timeout)


def alone(options, check):
    """One node, every etcdctl; and etcd itself, so that the table stays true."""
    programs = [("polder", [options.polder, "etcd"])]
    if os.path.exists("/usr/bin/etcd"):
        programs.append(("etcd", ["/usr/bin/etcd"]))
    for which, program in programs:
        for etcdctl in options.etcdctl if which == "polder" else options.etcdctl[-1:]:
            version = run([etcdctl, "version"]).out.split("\n")[0].split()[-1]
            print(f"      auth: {which}, etcdctl {version}", flush=True)
            servers, base = Servers(program), free_base_port(1)
            try:
                url = servers.start("default", base, {"default": f"http://127.0.0.1:{base + 1}"})
                c = Control(etcdctl, url)
                check(f"{which} is up", eventually(lambda: c("get a").ok, 20))
                for user, words, succeeds, said in SETUP + ENABLED:
                    if succeeds is None:
                        if which == "etcd":
                            continue
                        succeeds = False
                    got = c(words, user, stdin="new-pw\n")
                    check(f"{which}: {user or 'nobody'}: {words}",
                          got.ok == succeeds and said in got.out + got.err, got)
            finally:
                servers.remove()


def three(options, check):
    names = ["a", "b", "c"]
    base = free_base_port(3)
    peers = {n: f"http://127.0.0.1:{base + 10 * i + 1}" for i, n in enumerate(names)}
    servers = Servers([options.polder, "etcd"])
    print("      auth: three nodes", flush=True)
    try:
        urls = {n: servers.start(n, base + 10 * i, peers) for i, n in enumerate(names)}
        c = Control(options.etcdctl[-1], ",".join(urls.values()))
        check("three nodes are up", all(eventually(lambda: c("get a", at=u).ok, 20) for u in urls.values()))
        for words in ("user add root:root", "role add app", "role grant-permission app readwrite app/ --prefix",
                      "user add ann:ann", "user grant-role ann app", "user grant-role root root"):
            check(words, c(words).ok)
        revision = c("put app/1 1 -w json").json["header"]["revision"]
        check("auth enable", c("auth enable").ok)
        after = c("get app/1 -w json", "ann:ann").json["header"]["revision"]
        check("changes of users take no revision of the keys", after == revision, (revision, after))
        for name, url in urls.items():
            check(f"{name} knows it at once", "user name is empty" in c("put x 1", at=url).err)
            check(f"{name} knows ann", c("put app/2 2", "ann:ann", at=url).ok)
        watched(c, check)
        revoked(c, urls, check)
        tokens(servers, c, urls, check)
        restarts(servers, c, urls, peers, base, names, check)
        crash_while_enabling(servers, c, urls, peers, base, names, check)
    finally:
        servers.remove()


def watched(c, check):
    """Streams that are open when the permission goes."""
    words = [c.program, f"--endpoints={c.endpoints}", "--user=ann:ann", "watch", "app/", "--prefix"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               env=dict(os.environ, ETCDCTL_API="3"))
    lines = []
    reader = threading.Thread(target=lambda: lines.extend(process.stdout), daemon=True)
    reader.start()
    try:
        # Until it is seen: the watch may not be there yet.
        seen = eventually(lambda: c("put app/w before", "ann:ann").ok and "before\n" in lines, 10, 0.2)
        check("a watch of what is permitted shows it", seen, lines)
        check("the role is taken away", c("user revoke-role ann app", "root:root").ok)
        check("root writes on", c("put app/w after", "root:root").ok)
        process.wait(30)
        reader.join(10)
        check("the watch is cancelled", "cancel" in "".join(lines), lines)
        check("and shows nothing of what came then", "after\n" not in lines, lines)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        c("user grant-role ann app", "root:root")


def revoked(c, urls, check):
    """Once a change is acknowledged, every node goes by it, for denials and for grants."""
    nodes = list(urls.values())
    late = []
    for i in range(6):
        here, there = nodes[i % 3], nodes[(i + 1) % 3]
        if not c("user revoke-role ann app", "root:root", at=here).ok:
            late.append("revoke failed")
        for url in nodes:
            got = c(f"put app/r {i}", "ann:ann", at=url)
            if got.ok or "permission denied" not in got.err:
                late.append(f"put {i} at {url}: {got}")
        if c("get app/r", "ann:ann", at=there).ok:
            late.append(f"get {i}")
        if not c("user grant-role ann app", "root:root", at=there).ok:
            late.append("grant failed")
        for url in nodes:
            got = c(f"put app/g {i}", "ann:ann", at=url)
            if not got.ok:
                late.append(f"put after grant {i} at {url}: {got}")
    check("an acknowledged change counts at every node", not late, late[:3])


def tokens(servers, c, urls, check):
    """What etcdctl cannot: one token at several nodes, and wrong ones."""
    from etcd_client import CallFailed, Client, encode, grpc, one
    if not grpc:
        return print("      (no grpcio: tokens are not looked at)", flush=True)
    channels = {n: Client(u, None) for n, u in urls.items()}
    clients = list(channels.values())
    put = lambda client, token, key: client.channel.unary_unary("/etcdserverpb.KV/Put")(
        encode(_1=key, _2="v"), metadata=[("token", token)], timeout=5)

    def outcome(client, token, key):
        try:
            put(client, token, key)
            return "OK"
        except grpc.RpcError as error:
            return f"{error.code().name} {error.details()}"

    token = one(clients[0].call("/etcdserverpb.Auth/Authenticate", encode(_1="ann", _2="ann")), 2, b"").decode()
    check("one token is good at every node", [outcome(x, token, "app/t") for x in clients] == ["OK"] * 3)
    check("and permits no more than its user may",
          outcome(clients[1], token, "x") == "PERMISSION_DENIED etcdserver: permission denied")
    for wrong in ("", "x", token[:-1], token + "A", token.swapcase(), "a.b.c"):
        got = outcome(clients[1], wrong, "app/t")
        check(f"a wrong token ({len(wrong)} letters) is none", got == "UNAUTHENTICATED etcdserver: invalid auth token", got)
    try:
        clients[0].call("/etcdserverpb.KV/Put", encode(_1="app/t", _2="v"))
        check("no token is refused", False)
    except CallFailed as error:
        check("no token is refused", (error.code, error.details) ==
              ("INVALID_ARGUMENT", "etcdserver: user name is empty"), error)
    check("a new password", c("user passwd --interactive=false ann", "root:root", stdin="ann2\n").ok)
    got = [outcome(x, token, "app/t") for x in clients]
    check("ends the user's tokens at every node", set(got) == {"UNAUTHENTICATED etcdserver: invalid auth token"}, got)
    c("user passwd --interactive=false ann", "root:root", stdin="ann\n")
    # Many wrong passwords at once: others do not notice.
    token = one(clients[0].call("/etcdserverpb.Auth/Authenticate", encode(_1="ann", _2="ann")), 2, b"").decode()
    login = clients[0].channel.unary_unary("/etcdserverpb.Auth/Authenticate")
    guesses = [login.future(encode(_1="ann", _2=f"guess{i}"), timeout=20) for i in range(200)]
    slowest = 0
    for i in range(20):
        began = time.time()
        put(clients[0], token, "app/t")
        slowest = max(slowest, time.time() - began)
    codes = set()
    for guess in guesses:
        codes.add(guess.exception().details())
    check("guessed passwords are refused", codes <= {
        "etcdserver: authentication failed, invalid user ID or password", "etcdserver: too many requests"}, codes)
    check("and delay nobody else", slowest < 2, f"{slowest:.3f} s")
    for client in clients:
        client.close()


def restarts(servers, c, urls, peers, base, names, check):
    for name in names:
        servers.kill(name)
    for i, name in enumerate(names):
        servers.start(name, base + 10 * i, peers)
    check("after kill -9 of all, users are there",
          eventually(lambda: c("get app/1", "ann:ann").ok, 20))
    check("and authentication is on", "user name is empty" in c("put x 1").err)
    servers.kill("b")
    check("with a node gone, roles change", c("user revoke-role ann app", "root:root", at=urls["a"]).ok)
    servers.start("b", base + 10, peers)
    got = eventually(lambda: (lambda a: a if "permission denied" in a.err or a.ok else None)(
        c("put app/1 1", "ann:ann", at=urls["b"])), 20)
    check("a node that was away learns it before it serves", got and not got.ok, got)
    c("user grant-role ann app", "root:root")


def crash_while_enabling(servers, c, urls, peers, base, names, check):
    """Enabled or not: the same at all nodes, whatever the crash cut off."""
    mixed = []
    for round in range(3):
        check("auth disable", eventually(lambda: c("auth disable", "root:root").ok, 20))
        leader = eventually(lambda: leading(urls), 20)
        enabling = threading.Thread(target=lambda: c("auth enable", at=urls[names[round]], timeout=40))
        enabling.start()
        time.sleep(0.02 + 0.05 * round)
        servers.kill(leader)
        enabling.join(60)
        servers.start(leader, base + 10 * names.index(leader), peers)

        def states():
            seen = []
            for url in urls.values():
                got = c("get app/1", at=url)
                seen.append("on" if "user name is empty" in got.err else "off" if got.ok else "?")
            return None if "?" in seen else seen
        seen = eventually(states, 20)
        if not seen or len(set(seen)) != 1:
            mixed.append(seen)
        if seen and seen[0] == "on":
            check("root is let in", eventually(lambda: c("get app/1", "root:root").ok, 20))
        else:
            c("auth enable")
    check("a crash while enabling leaves all nodes of one mind", not mixed, mixed)


def leading(urls):
    import json, urllib.request
    for url in urls.values():
        try:
            with urllib.request.urlopen(url + "/polder/status", timeout=5) as answer:
                status = json.load(answer)
                name = (status.get("sequencer") or {}).get("node")
                if name in urls:
                    return name
        except OSError:
            continue
    return None


def secure(options, check):
    """Who a client is by certificate; JSON web tokens signed with a key pair."""
    print("      auth: certificates, JSON web tokens", flush=True)
    base = free_base_port(1)
    servers = Servers([options.polder, "etcd"])
    certs = servers.dir + "/certs"
    try:
        for name in ("root", "ann", "server"):
            run([options.polder, "certs", "create", "--dir", certs, "--name", name, "--ip", "127.0.0.1"])
        run(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out",
             certs + "/jwt.key"])
        run(["openssl", "pkey", "-in", certs + "/jwt.key", "-pubout", "-out", certs + "/jwt.pub"])
        url = servers.start(
            "default", base, {"default": f"http://127.0.0.1:{base + 1}"}, scheme="https", flags=[
                f"--cert-file={certs}/server.crt", f"--key-file={certs}/server.key",
                f"--trusted-ca-file={certs}/ca.crt", "--client-cert-auth",
                f"--auth-token=jwt,sign-method=ES256,pub-key={certs}/jwt.pub,priv-key={certs}/jwt.key,ttl=1m"])
        by = {n: Control(options.etcdctl[-1], url, [f"--cacert={certs}/ca.crt", f"--cert={certs}/{n}.crt",
                                                    f"--key={certs}/{n}.key"]) for n in ("root", "ann", "server")}
        c = by["root"]
        check("the secure node is up", eventually(lambda: c("get a").ok, 20))
        for words in ("user add root:root", "user grant-role root root", "role add app",
                      "role grant-permission app readwrite app", "user add ann --no-password",
                      "user grant-role ann app", "user add bob:bob", "put app 1", "auth enable"):
            check(words, c(words).ok)
        check("root is who its certificate says", c("user list").ok)
        check("so is ann", by["ann"]("get app").ok and "permission denied" in by["ann"]("get x").err)
        got = by["server"]("get app")
        check("a certificate of nobody known permits nothing", "permission denied" in got.err, got)
        got = by["ann"]("get app", "bob:bob")
        check("a token counts before the certificate", "permission denied" in got.err, got)
        check("web tokens work", by["ann"]("put app 2", "root:root").ok and c("get app").ok)
        check("also after a change of roles", c("role add other", "root:root").ok and
              c("user grant-role bob app", "root:root").ok and by["server"]("get app", "bob:bob").ok)
    finally:
        servers.remove()
    got = run([options.polder, "etcd", "--data-dir", tempfile.gettempdir() + "/never", "--auth-token",
               "jwt,sign-method=XS256"])
    check("an unknown signing method is refused", got.code == 2 and "sign-method" in got.err + got.out, got)


def suite(options, check):
    alone(options, check)
    three(options, check)
    secure(options, check)
