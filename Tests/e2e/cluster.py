"""A `polder dev` cluster for tests, and the clients that talk to it."""
import json, os, shutil, signal, socket, ssl, subprocess, tempfile, threading, time, urllib.error
import urllib.request


def free_base_port(count):
    """The first of `count` groups of ten ports that are free, away from the ephemeral range."""
    for base in range(21000 + os.getpid() % 97 * 100, 32000, 10 * count):
        try:
            for i in range(count):
                for port in (base + 10 * i, base + 10 * i + 1):
                    with socket.socket() as s:
                        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                        s.bind(("127.0.0.1", port))
            return base
        except OSError:
            continue
    raise SystemExit("no free ports")


def eventually(condition, seconds=10, every=0.1):
    # Six times what is expected: only a failure takes that long, and machines are shared.
    end = time.time() + 6 * seconds
    while True:
        value = condition()
        if value or time.time() > end:
            return value
        time.sleep(every)


class Answer:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err
        self.ok = code == 0

    @property
    def json(self):
        return json.loads(self.out)

    def __repr__(self):
        return f"exit code {self.code}: {self.out[-400:]} {self.err[-1200:]}"


def run(words, stdin=None, timeout=60, env=None):
    try:
        done = subprocess.run(
            words, input=stdin, capture_output=True, text=True, timeout=timeout,
            env=dict(os.environ, ETCDCTL_API="3", **(env or {})))
        return Answer(done.returncode, done.stdout, done.stderr)
    except subprocess.TimeoutExpired as late:
        text = lambda b: (b or b"").decode() if isinstance(b, (bytes, type(None))) else b
        return Answer(124, text(late.stdout), text(late.stderr) + " (no end in time)")


class Cluster:
    def __init__(self, polder, etcdctl, regions=1, nodes=3, tls=True, flags=()):
        self.polder, self.etcdctl_path = os.path.abspath(polder), etcdctl
        self.dir = tempfile.mkdtemp(prefix="polder-e2e-")
        self.base = free_base_port(regions * nodes)
        self.flags = ["--regions", str(regions), "--nodes", str(nodes), "--base-port", str(self.base),
                      *flags]
        if not tls:
            self.flags.append("--no-tls")
        self.process = None
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [self.polder, "dev", "--data-dir", self.dir, *self.flags], stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True)
        lines = []
        for line in self.process.stdout:
            lines.append(line.rstrip())
            if line.strip() == "ready":
                break
        else:
            raise RuntimeError("polder dev did not come up:\n" + "\n".join(lines))
        self.printed = lines
        # Keep the pipe empty.
        threading.Thread(target=self.process.stdout.read, daemon=True).start()
        self.read_description()

    def read_description(self):
        with open(self.dir + "/dev.json") as f:
            self.description = json.load(f)
        self.nodes = {n["name"]: n for r in self.description["regions"] for n in r["nodes"]}

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(40)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return self.process.returncode

    def remove(self):
        self.stop()
        shutil.rmtree(self.dir, ignore_errors=True)

    # Clients

    def urls(self, region="r1"):
        return [n["client"] for r in self.description["regions"] if r["name"] == region
                for n in r["nodes"]]

    def tls_flags(self):
        tls = self.description["tls"]
        return [f"--cacert={tls['ca']}", f"--cert={tls['cert']}", f"--key={tls['key']}"] if tls else []

    def etcdctl_words(self, *words, at=None, region="r1"):
        endpoints = self.nodes[at]["client"] if at else ",".join(self.urls(region))
        return [self.etcdctl_path, f"--endpoints={endpoints}", "--command-timeout=30s",
                *self.tls_flags(), *words]

    def etcdctl(self, *words, at=None, region="r1", stdin=None, timeout=60):
        return run(self.etcdctl_words(*words, at=at, region=region), stdin=stdin, timeout=timeout)

    def dev_node(self, action, name):
        answer = run([self.polder, "dev-node", action, name, "--data-dir", self.dir], timeout=60)
        self.read_description()
        return answer

    def http(self, path, at, method="GET", client_certificate=True):
        tls = self.description["tls"]
        context = None
        if tls:
            context = ssl.create_default_context(cafile=tls["ca"])
            if client_certificate:
                context.load_cert_chain(tls["cert"], tls["key"])
        request = urllib.request.Request(self.nodes[at]["client"] + path, method=method)
        try:
            with urllib.request.urlopen(request, context=context, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def get(self, key, **where):
        answer = self.etcdctl("get", key, "--print-value-only", **where)
        return answer.out.rstrip("\n") if answer.ok else None

    def logs(self):
        text = ""
        for name, node in self.nodes.items():
            try:
                with open(f"{self.dir}/{name}/log") as f:
                    lines = f.read().splitlines()[-12:]
                text += f"--- {name}\n" + "\n".join(lines) + "\n"
            except OSError:
                pass
        return text


class Load(threading.Thread):
    """Puts with ascending numbers until told to stop; remembers what was acknowledged."""

    def __init__(self, cluster, prefix, region="r1"):
        super().__init__(daemon=True)
        self.cluster, self.prefix, self.region = cluster, prefix, region
        self.acknowledged, self.failed, self.revisions, self.slowest = {}, [], [], 0.0
        self.stopping = False

    def run(self):
        number = 0
        while not self.stopping:
            number += 1
            began = time.time()
            answer = self.cluster.etcdctl(
                "put", f"{self.prefix}{number:05}", str(number), "-w", "json", region=self.region)
            self.slowest = max(self.slowest, time.time() - began)
            if answer.ok:
                self.acknowledged[f"{self.prefix}{number:05}"] = str(number)
                self.revisions.append(answer.json["header"]["revision"])
            else:
                self.failed.append((number, answer.err.strip()))

    def stop(self):
        self.stopping = True
        self.join()
