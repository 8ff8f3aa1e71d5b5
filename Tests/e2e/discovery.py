"""`--discovery-srv` against a real resolver: a network of its own with a name server of its own.

`check_all` runs this file once more inside a namespace (needs root, or user namespaces); what the inner one
prints are checks: "ok NAME" or "FAIL NAME DETAIL".
"""
import os, signal, socket, struct, subprocess, sys, threading, time

DOMAIN = "polder.test"
NAMES = {f"m{i}.{DOMAIN}": f"127.0.1.{i + 1}" for i in range(3)}


def wire(name):
    return b"".join(bytes([len(p)]) + p.encode() for p in name.split(".")) + b"\0"


def answer(question):
    at, labels = 12, []
    while question[at]:
        labels.append(question[at + 1:at + 1 + question[at]].decode())
        at += 1 + question[at]
    name, kind = ".".join(labels).lower(), struct.unpack(">H", question[at + 1:at + 3])[0]
    records = []
    if kind == 33 and name == f"_etcd-server._tcp.{DOMAIN}":
        records = [struct.pack(">HHH", 0, 0, 2380) + wire(n) for n in NAMES]
    if kind == 1 and name in NAMES:
        records = [socket.inet_aton(NAMES[name])]
    code = 0 if records or name in NAMES else 3
    out = question[:2] + struct.pack(">HHHHH", 0x8580 | code, 1, len(records), 0, 0) + question[12:at + 5]
    for data in records:
        out += b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 60, len(data)) + data
    return out


def serve_names():
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))
    while True:
        question, client = server.recvfrom(4096)
        try:
            server.sendto(answer(question), client)
        except (IndexError, struct.error, UnicodeDecodeError):
            pass


def inside(polder, etcdctl, folder):
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with open(folder + "/resolv.conf", "w") as f:
        f.write("nameserver 127.0.0.1\n")
    subprocess.run(["mount", "--bind", folder + "/resolv.conf", "/etc/resolv.conf"], check=True)
    threading.Thread(target=serve_names, daemon=True).start()

    def start(i, name, advertised):
        address = f"127.0.1.{i + 1}"
        with open(f"{folder}/{name}.log", "ab") as log:
            return subprocess.Popen(
                [polder, "etcd", "--name", name, "--data-dir", f"{folder}/{name}",
                 "--discovery-srv", DOMAIN, "--initial-advertise-peer-urls", advertised,
                 "--listen-peer-urls", f"http://{address}:2380",
                 "--listen-client-urls", f"http://{address}:2379",
                 "--advertise-client-urls", f"http://{address}:2379"], stdout=log, stderr=log)

    def ctl(i, *words):
        return subprocess.run(
            [etcdctl, f"--endpoints=http://127.0.1.{i + 1}:2379", "--command-timeout=5s", *words],
            capture_output=True, text=True, env=dict(os.environ, ETCDCTL_API="3"))

    def tell(name, condition, detail=""):
        print(f"{'ok' if condition else 'FAIL'} {name} {'' if condition else str(detail)[:600]}", flush=True)

    # By name, by address, and a third time by name.
    nodes = [start(i, f"n{i}", url) for i, url in enumerate(
        (f"http://m0.{DOMAIN}:2380", "http://127.0.1.2:2380", f"http://m2.{DOMAIN}:2380"))]
    try:
        end = time.time() + 60
        while ctl(0, "put", "a", "1").returncode and time.time() < end:
            time.sleep(0.2)
        got = ctl(2, "get", "a", "--print-value-only")
        tell("members find each other by SRV records", got.stdout.strip() == "1", got)
        members = ctl(1, "member", "list").stdout
        tell("their URLs are those of DNS",
             all(f"http://{n}:2380" in members for n in NAMES) and "n1" in members, members)
        stranger = start(7, "stranger", "http://127.0.1.8:2380")
        with open(folder + "/stranger.log") as log:
            tell("who is not among them is refused", stranger.wait(20) == 2, log.read())
    finally:
        for node in nodes:
            node.send_signal(signal.SIGTERM)
        for node in nodes:
            node.wait(20)


def check_all(check, e):
    print("      --discovery-srv: three nodes and a name server", flush=True)
    space = ["unshare", "--net", "--mount"]
    if subprocess.run([*space, "ip", "link", "set", "lo", "up"], capture_output=True).returncode:
        return print("      no namespaces here: skipped", flush=True)
    folder = e.dir + "/discovery"
    os.mkdir(folder)
    done = subprocess.run([*space, sys.executable, os.path.abspath(__file__), e.polder, e.etcdctl_path, folder],
                          capture_output=True, text=True, timeout=180)
    lines = [line.split(" ", 1) for line in done.stdout.splitlines()]
    for verdict, name in lines:
        check(name, verdict == "ok")
    check("the checks of discovery ran to their end", done.returncode == 0 and len(lines) == 3, done)


if __name__ == "__main__":
    inside(*sys.argv[1:])
