#!/usr/bin/env python3
"""Hostile clients against a real node: hostile.py --polder POLDER [--only WORD] [--seconds N]

For each attack: what another client's gets and puts take before and during it, the server's memory, and
whether it serves afterwards. The target: the other client's p99 at most doubles (below `--floor`
milliseconds nobody counts: one turn of the loop), memory stays below `--memory`, nothing stops. Ends with 1
if anything misses it.

The server and the measuring client run before others on a shared machine (nice -10, which needs root), the
attackers behind them: what is measured is the server, not the scheduler.
"""
import argparse, multiprocessing, os, shutil, signal, subprocess, sys, tempfile, threading, time
import urllib.request

import attacks
from wire import *


class Server:
    running = []

    def __init__(self, polder, port, priority):
        self.directory = tempfile.mkdtemp(prefix="polder-hostile-")
        self.address = ("127.0.0.1", port)
        self.log = open(self.directory + "/log", "wb")
        words = [os.path.abspath(polder), "etcd", "--name=hostile", f"--data-dir={self.directory}/data",
                 f"--listen-client-urls=http://127.0.0.1:{port}",
                 f"--advertise-client-urls=http://127.0.0.1:{port}",
                 f"--listen-peer-urls=http://127.0.0.1:{port + 1}",
                 f"--initial-advertise-peer-urls=http://127.0.0.1:{port + 1}",
                 f"--initial-cluster=hostile=http://127.0.0.1:{port + 1}"]
        self.process = subprocess.Popen(
            words, stdout=self.log, stderr=self.log, preexec_fn=lambda: prioritise(priority))
        Server.running.append(self)
        end = time.time() + 60
        while time.time() < end:
            try:
                Connection(self.address).call(PUT, put_request(b"k", b"v"))
                return
            except (OSError, Gone):
                time.sleep(0.1)
        raise SystemExit(f"the server does not come up: {self.directory}/log")

    def memory(self, name="VmRSS"):
        try:
            with open(f"/proc/{self.process.pid}/status") as status:
                for line in status:
                    if line.startswith(name + ":"):
                        return int(line.split()[1]) >> 10
        except OSError:
            pass
        return 0

    def cpu(self):
        """Seconds, of all its threads."""
        try:
            with open(f"/proc/{self.process.pid}/stat") as stat:
                words = stat.read().rsplit(")", 1)[1].split()
            return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
        except (OSError, IndexError):
            return 0

    def is_alive(self):
        return self.process.poll() is None

    def stop(self):
        Server.running.remove(self)
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


def prioritise(by):
    try:
        os.setpriority(os.PRIO_PROCESS, 0, by)
    except OSError:
        pass


def measure(address, seconds, priority, out):
    """Gets and puts by turns on one connection; their times, and the calls that failed."""
    prioritise(priority)
    times, failed, connection = {"get": [], "put": []}, [], None
    start = time.time()
    end, i = start + seconds, 0
    while time.time() < end:
        i += 1
        kind = "put" if i % 2 else "get"
        began = time.perf_counter()
        try:
            if connection is None:
                connection = Connection(address, timeout=20)
            if kind == "put":
                connection.call(PUT, put_request(b"probe", b"x" * 100))
            else:
                connection.call(RANGE, range_request(b"probe"))
        except (OSError, Gone) as error:
            failed.append(str(error))
            if connection:
                connection.close()
            connection = None
            time.sleep(0.05)
        times[kind].append((time.time() - start, (time.perf_counter() - began) * 1000))
        time.sleep(0.001)
    out.put((times, failed))


def p99(times):
    """The median of the p99 of each second: one hiccup of the machine is not the server's."""
    seconds = {}
    for at, took in times:
        seconds.setdefault(int(at), []).append(took)
    found = sorted(sorted(s)[min(len(s) - 1, int(len(s) * 0.99))] for s in seconds.values())
    return found[len(found) // 2] if found else float("inf")


def observed(server, seconds, priority):
    queue = multiprocessing.Queue()
    process = multiprocessing.Process(target=measure, args=(server.address, seconds, priority, queue))
    process.start()
    try:
        result = queue.get(timeout=seconds + 60)
    except Exception:
        result = ({"get": [], "put": []}, ["no answer in a minute"])
    process.join(10)
    if process.is_alive():
        process.kill()
    return result


def attack(work, address, seconds, queue):
    try:
        queue.put(work(address, seconds))
    except Exception as error:
        queue.put(f"{type(error).__name__}: {error}")


def fill(address, mebibytes):
    connection = Connection(address)
    value = os.urandom(16 << 10)
    for i in range(mebibytes * 64):
        connection.call(PUT, put_request(b"huge/%06d" % i, value))
    connection.close()


def watching(server, peak, done):
    while not done.is_set():
        peak[0] = max(peak[0], server.memory())
        time.sleep(0.05)


def trial(server, work, options):
    before, failed_before = observed(server, options.seconds / 2, options.priority)
    base, peak, done = server.memory(), [0], threading.Event()
    watcher = threading.Thread(target=watching, args=(server, peak, done))
    watcher.start()
    queue = multiprocessing.Queue()
    attackers = [
        multiprocessing.Process(target=attack, args=(work, server.address, options.seconds + 2, queue))
        for _ in range(options.attackers)]
    for attacker in attackers:
        attacker.start()
    time.sleep(2)
    cpu, began = server.cpu(), time.time()
    during, failed = observed(server, options.seconds, options.priority)
    cpu = (server.cpu() - cpu) / (time.time() - began)
    words = []
    for attacker in attackers:
        try:
            words.append(queue.get(timeout=60))
        except Exception:
            words.append("the attacker did not end")
        attacker.join(5)
        if attacker.is_alive():
            attacker.kill()
    done.set()
    watcher.join()
    time.sleep(1)
    after, failed_after = observed(server, 2, options.priority)
    serves = server.is_alive() and bool(after["get"]) and not failed_after
    row = {"name": work.__name__, "base": base, "peak": peak[0], "after": server.memory(), "words": words,
           "cpu": cpu, "serves": serves, "failed": failed, "problems": []}
    for kind in ("get", "put"):
        was, now = p99(before[kind] + [(t + 1000, x) for t, x in after[kind]]), p99(during[kind])
        row[kind] = (was, now)
        if now > max(2 * was, options.floor):
            row["problems"].append(f"{kind} p99 x{now / was:.1f}")
    if failed or failed_before:
        row["problems"].append(f"{len(failed)} calls failed: {(failed or failed_before)[0][:60]}")
    if peak[0] > options.memory:
        row["problems"].append(f"{peak[0]} MiB")
    if not serves:
        row["problems"].append("does not serve afterwards")
    return row


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--polder", default=".build/release/polder")
    parser.add_argument("--only")
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--port", type=int, default=23800)
    parser.add_argument("--attackers", type=int, default=1)
    parser.add_argument("--memory", type=int, default=1200, help="MiB")
    parser.add_argument("--floor", type=float, default=10, help="milliseconds")
    parser.add_argument("--priority", type=int, default=-10)
    options = parser.parse_args()
    chosen = [a for a in attacks.ALL if not options.only or options.only in a.__name__]
    if not chosen:
        raise SystemExit(f"no attack is called {options.only}")
    attacks.raise_limit()
    print(f"{'attack':22} {'get p99 ms':>17} {'put p99 ms':>17} {'MiB before/peak/after':>22}  CPU  verdict")
    try:
        bad = trials(chosen, options)
    finally:
        for running in list(Server.running):
            running.stop()
    print(f"{len(chosen) - bad} of {len(chosen)} good")
    sys.exit(1 if bad else 0)


def trials(chosen, options):
    bad, server = 0, None
    for work in chosen:
        if server is None:
            server = Server(options.polder, options.port, options.priority)
            fill(server.address, 64)
        row = trial(server, work, options)
        shown = [f"{row[k][0]:6.1f} {row[k][1]:6.1f} x{row[k][1] / row[k][0]:<4.1f}" for k in ("get", "put")]
        verdict = "; ".join(row["problems"]) or "good"
        bad += bool(row["problems"])
        print(f"{row['name']:22} {shown[0]:>17} {shown[1]:>17} "
              f"{row['base']:>8} {row['peak']:>6} {row['after']:>6} {row['cpu']:>4.0%}  {verdict}  [{row['words'][0]}]", flush=True)
        if not server.is_alive():
            print(f"  the server has ended with {server.process.returncode}: {server.directory}/log")
            Server.running.remove(server)
            server = None
        elif row["after"] > 3 * max(row["base"], 200):
            # Whatever is left would be counted against the next one.
            server.stop()
            server = None
    return bad


if __name__ == "__main__":
    main()
