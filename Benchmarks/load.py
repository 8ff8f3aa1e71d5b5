"""The two load generators as functions: h2load (closed loops of recorded bodies) and polder-load (open
loops, verified answers). Both return figures; latencies are milliseconds."""
import json, os, subprocess, sys

HERE = os.path.dirname(os.path.abspath(__file__))
GENERATOR = os.path.join(HERE, ".build", "release", "polder-load")


def grpc(message):
    return b"\0" + len(message).to_bytes(4, "big") + message


def percentiles(sorted_ms):
    pick = lambda q: sorted_ms[min(len(sorted_ms) - 1, int(len(sorted_ms) * q))]
    return {"p50": pick(0.5), "p90": pick(0.9), "p99": pick(0.99), "p999": pick(0.999), "max": sorted_ms[-1]}


class H2Load:
    """One h2load against one node; `finish` waits for it and fails if a request failed."""

    count = 0

    def __init__(self, server, method, body, requests, clients, streams, scratch, node=0):
        H2Load.count += 1
        self.requests, self.what = requests, f"{server.name} {method}"
        path = os.path.join(scratch, f"body{H2Load.count}")
        self.log = os.path.join(scratch, f"log{H2Load.count}")
        with open(path, "wb") as f:
            f.write(grpc(body))
        self.process = subprocess.Popen([
            "h2load", "-n", str(requests), "-c", str(clients), "-m", str(streams), "-t", "1", "-w", "24",
            "-W", "24", "-d", path, "-H", "content-type: application/grpc", "-H", "te: trailers",
            f"--log-file={self.log}",
            f"http://127.0.0.1:{server.ports[node % server.nodes]}/etcdserverpb.{method}"],
            stdout=subprocess.PIPE, text=True)

    def finish(self, timeout=600):
        """Latencies in ms, sorted."""
        output = self.process.communicate(timeout=timeout)[0]
        if f"{self.requests} succeeded" not in output:
            sys.exit(f"bench: {self.what}: not every request succeeded:\n{output}")
        with open(self.log) as f:
            latencies = sorted(int(line.split("\t")[2]) / 1000 for line in f)
        os.unlink(self.log)
        return latencies


def command(server, *arguments, **options):
    scheme = "https" if server.tls else "http"
    words = [GENERATOR, "--endpoints", ",".join(f"{scheme}://127.0.0.1:{p}" for p in server.ports)]
    for name, value in options.items():
        words += ["--" + name.replace("_", "-"), str(value)]
    if server.tls:
        words += ["--cacert", server.tls["ca"], "--cert", server.tls["cert"], "--key", server.tls["key"]]
    return words + list(arguments)


def start(server, *arguments, **options):
    return subprocess.Popen(command(server, *arguments, **options), stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)


def finish(server, process, timeout=3600, errors=False):
    """The generator's report. Wrong answers end the benchmark; so do failed requests, unless `errors`."""
    out, err = process.communicate(timeout=timeout)
    if process.returncode == 2 or not out:
        sys.exit(f"bench: {server.name}: {err.strip() or 'the load generator said nothing'}")
    report = json.loads(out)
    watch = report.get("watch", {})
    if report["wrong"] or (report["errors"] and not errors) or watch.get("events", 0) < watch.get("expected", 0):
        sys.exit(f"bench: {server.name}: wrong or failed answers: {json.dumps(report, indent=1)}")
    return report


def run(server, *arguments, errors=False, **options):
    return finish(server, start(server, *arguments, **options), errors=errors)


def fill(server, prefix, keys, size, outstanding=512):
    """`keys` keys of `size` bytes; returns the report of writing them."""
    return run(server, "--prepare-only", prefix=prefix, keys=keys, size=size, outstanding=outstanding,
               connections=16, rate=0, timeout=60)


def limits(folder, rounds=1000):
    out = subprocess.run([GENERATOR, "limits", folder, "--rounds", str(rounds)], capture_output=True, text=True)
    return json.loads(out.stdout) if out.returncode == 0 else {}
