"""What is left of etcd's surface beside its RPCs: certificates of its own, service managers, alarms and
health, warnings, and both ways of moving in that snapshots.py does not take.

Imported by e2e.py; `--only surface` runs this alone.
"""
import json, os, re, shutil, signal, socket, ssl, stat, sys, urllib.error, urllib.request

import discovery
import observed
import recovery
from cluster import free_base_port, run


def page(url, context=None, method="GET"):
    try:
        request = urllib.request.Request(url, method=method)
        with urllib.request.urlopen(request, timeout=10, context=context) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read().decode()


def flags(e, name, base, scheme="http", peer_scheme="http", cluster=None):
    client, peer = f"{scheme}://127.0.0.1:{base}", f"{peer_scheme}://127.0.0.1:{base + 1}"
    return client, [
        "--name", name, "--data-dir", f"{e.dir}/{name}.etcd", "--listen-client-urls", client,
        "--advertise-client-urls", client, "--listen-peer-urls", peer,
        "--initial-advertise-peer-urls", peer, "--initial-cluster", cluster or f"{name}={peer}"]


def own_certificates(check, e):
    print("      --auto-tls", flush=True)
    url, words = flags(e, "auto", free_base_port(1), scheme="https")
    words.append("--auto-tls")
    check("it comes up", e.start("auto", words))
    folder = f"{e.dir}/auto.etcd/fixtures/client"
    key = os.stat(folder + "/key.pem")
    check("the key is its owner's only", stat.S_IMODE(key.st_mode) == 0o600, oct(key.st_mode))
    e.tls_flags = ["--insecure-skip-tls-verify", "--insecure-transport=false"]
    check("put", e.etcdctl("put", "a", "1", at=url).ok)
    e.tls_flags = [f"--cacert={folder}/cert.pem"]
    check("the certificate vouches for itself", e.get("a", at=url) == "1")
    context = ssl.create_default_context(cafile=folder + "/cert.pem")
    status = page(url + "/health", context)
    check("for every client", status == (200, '{"health":"true","reason":""}'), status)
    e.tls_flags = []
    check("but not for one that does not know it",
          not e.etcdctl("get", "a", "--command-timeout=2s", at=url).ok)
    with open(folder + "/cert.pem") as f:
        before = f.read()
    e.end("auto")
    check("it starts again", e.start("auto", words))
    with open(folder + "/cert.pem") as f:
        check("with the same certificate", f.read() == before)
    e.end("auto")


def own_certificates_of_peers(check, e):
    print("      --peer-auto-tls: three nodes", flush=True)
    base, names = free_base_port(3), ["p0", "p1", "p2"]
    cluster = ",".join(f"{n}=https://127.0.0.1:{base + 10 * i + 1}" for i, n in enumerate(names))
    urls = {}
    for i, name in enumerate(names):
        urls[name], words = flags(e, name, base + 10 * i, peer_scheme="https", cluster=cluster)
        e.start(name, words + ["--peer-auto-tls"], wait=False)
    for name in names:
        check(f"{name} comes up", e.said(name, "ready to serve client requests"))
    check("put", e.etcdctl("put", "a", "1", at=urls["p0"]).ok)
    check("get elsewhere", e.get("a", at=urls["p2"]) == "1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", base + 1), timeout=10) as plain:
        with context.wrap_socket(plain) as secure:
            check("peers speak TLS", secure.version() in ("TLSv1.2", "TLSv1.3"), secure.version())
    for name in names:
        e.end(name)


def certificates_to_dial_with(check, e):
    """--peer-client-cert-file: whom peers listen to is not whom they show when they dial."""
    print("      peers with two certificates", flush=True)
    folder = e.dir + "/two"
    for name in ("listens", "dials"):
        check(f"a certificate that {name}", run([
            e.polder, "certs", "create", "--dir", folder, "--name", name, "--ip", "127.0.0.1"]).ok)
    base, names = free_base_port(3), ["d0", "d1", "d2"]
    cluster = ",".join(f"{n}=https://127.0.0.1:{base + 10 * i + 1}" for i, n in enumerate(names))
    urls = {}
    for i, name in enumerate(names):
        urls[name], words = flags(e, name, base + 10 * i, peer_scheme="https", cluster=cluster)
        e.start(name, words + [
            f"--peer-cert-file={folder}/listens.crt", f"--peer-key-file={folder}/listens.key",
            f"--peer-trusted-ca-file={folder}/ca.crt", "--peer-client-cert-auth",
            f"--peer-client-cert-file={folder}/dials.crt", f"--peer-client-key-file={folder}/dials.key",
            "--peer-cert-allowed-cn=listens,dials"], wait=False)
    for name in names:
        check(f"{name} comes up", e.said(name, "ready to serve client requests"))
    check("put", e.etcdctl("put", "a", "1", at=urls["d0"]).ok)
    check("get elsewhere", e.get("a", at=urls["d2"]) == "1")
    for name in names:
        e.end(name)


def every_flag(check, e):
    """Every flag of a real etcd is known, and nobody minds its default."""
    for etcd in sorted({p for p in ("/usr/bin/etcd", shutil.which("etcd")) if p and os.path.exists(p)}):
        help = run([etcd, "--help"])
        rows = re.findall(r"^ +--([a-z0-9-]+)(?: '([^'`.]*)')?", help.out + help.err, re.M)
        words = [f"--{name}={value}" for name, value in rows if value and name != "version"]
        print(f"      {len(rows)} flags of {run([etcd, '--version']).out.splitlines()[0]}", flush=True)
        for name in sorted({name for name, _ in rows} - {"version"}):
            told = run([e.polder, "etcd", f"--{name}=", "--version"])
            if "not defined" in told.out + told.err:
                check(f"--{name} is known", False, told)
        check("all together are taken", rows and run([e.polder, "etcd", *words, "--version"]).ok)


def service_manager(check, e):
    """systemd's Type=notify, as in etcd's own unit file."""
    print("      under a service manager", flush=True)
    path, told = e.dir + "/notify", []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(path)
        listener.settimeout(60)
        url, words = flags(e, "managed", free_base_port(1))
        e.start("managed", words, env={"NOTIFY_SOCKET": path}, wait=False)
        told.append(listener.recv(100))
        check("it tells when it is ready", told == [b"READY=1"], told)
        check("and then it serves", page(url + "/health")[0] == 200)
        check("SIGTERM is exit code 0", e.end("managed") == 0)
        told.append(listener.recv(100))
    check("it tells that it stops", told[1] == b"STOPPING=1", told)


def alarms(check, e):
    print("      alarms, health, warnings", flush=True)
    url, words = flags(e, "alarmed", free_base_port(1))
    words += ["--warning-apply-duration", "1ns", "--metrics", "extensive", "--election-timeout=2000"]
    check("it comes up", e.start("alarmed", words))

    def alarm(action, kind):
        body = json.dumps({"action": action, "alarm": kind, "memberID": "7"}).encode()
        with urllib.request.urlopen(f"{url}/v3/maintenance/alarm", body, timeout=10) as answer:
            return json.load(answer).get("alarms", [])
    e.etcdctl("put", "a", "1", at=url)
    for kind, refusal in (("CORRUPT", "corrupt cluster"), ("NOSPACE", "database space exceeded")):
        check(f"{kind} is raised by hand",
              alarm("ACTIVATE", kind) == [{"memberID": "7", "alarm": kind}])
        refused = e.etcdctl("put", "a", "2", at=url)
        check("writes are refused", refusal in refused.err, refused)
        check("reads are not", e.get("a", at=url) == "1")
        reason = '{"health":"false","reason":"ALARM %s"}\n' % kind
        check("health says so", page(url + "/health") == (503, reason), page(url + "/health"))
        check("unless told otherwise", page(f"{url}/health?exclude={kind}")[0] == 200)
        ready = page(url + "/readyz")
        check("readyz knows of damage", (kind == "CORRUPT") == ("alarm activated: CORRUPT" in ready[1]),
              ready)
        listed = e.etcdctl("alarm", "list", at=url).out
        check("etcdctl lists it", f"alarm:{kind}" in listed, listed)
        e.end("alarmed", signal.SIGKILL)
        check("kill -9, and it starts again", e.start("alarmed", words))
        check("the alarm is still there", f"alarm:{kind}" in e.etcdctl("alarm", "list", at=url).out)
        check("etcdctl takes it back", f"alarm:{kind}" in e.etcdctl("alarm", "disarm", at=url).out)
        check("writes are taken", e.etcdctl("put", "a", "1", at=url).ok)
        check("health is good", page(url + "/health")[0] == 200)
    slow = e.said("alarmed", "apply request took too long")
    check("what is slow is warned about", slow and slow["level"] == "warn"
          and slow["method"].startswith("/etcdserverpb.KV/") and "took" in slow, slow)
    figures = page(url + "/metrics")[1]
    check("and counted", "\netcd_server_slow_apply_total " in figures)
    check("--metrics extensive measures calls",
          'grpc_server_handling_seconds_bucket{grpc_method="Put"' in figures)
    granted = e.etcdctl("lease", "grant", "1", at=url).out
    check("an election timeout of 2 s makes a lease 3 s long", "TTL(3s)" in granted, granted)
    check("an unknown page is 404 for every method", page(url + "/v3alpha/kv/put", method="POST")[0] == 404)
    e.end("alarmed")


def large_answers(check, e):
    """Go's clients send pings while they receive, to measure the line: that is no flood."""
    print("      large answers", flush=True)
    url, words = flags(e, "large", free_base_port(1))
    check("it comes up", e.start("large", words))
    for i in range(24):
        put = run([e.etcdctl_path, f"--endpoints={url}", "put", f"large/{i:02}"],
                  stdin=os.urandom(500_000).hex())
    check("24 MB are put", put.ok, put)
    got = e.etcdctl("get", "large/", "--prefix", "--print-value-only", at=url)
    check("one answer has them all", len(got.out) >= 24_000_000, (len(got.out), got.err))
    saved = e.etcdctl("snapshot", "save", e.dir + "/large.db", at=url)
    check("and so has a snapshot", saved.ok and os.path.getsize(e.dir + "/large.db") > 24_000_000, saved)
    e.end("large")


def run_all(check, e):
    own_certificates(check, e)
    own_certificates_of_peers(check, e)
    certificates_to_dial_with(check, e)
    every_flag(check, e)
    service_manager(check, e)
    alarms(check, e)
    discovery.check_all(check, e)
    observed.check_all(check, e)
    recovery.check_all(check, e)
    large_answers(check, e)
