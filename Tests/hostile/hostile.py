#!/usr/bin/env python3
"""Hostile clients against a real node: hostile.py --polder POLDER [--only WORD] [--seconds N] [--etcd ETCD]

For each attack: what another client's gets and puts take at rest, beside a control, and during the attack; the
server's memory; and whether it serves afterwards. The target: the other client's p99 is at most twice what it is at
rest or beside the control, whichever is more (below `--floor` milliseconds nobody counts: a turn of the loop and a
step of long work), memory stays below `--memory`, nothing stops. Ends with 1 if anything misses it.

The control is what an attack costs that is not the server's doing: processes that do nothing but use as much CPU as
the attackers did, at the same niceness, while nobody attacks. The server and the measuring client run before others
on a shared machine (nice -10, which needs root), attackers and control behind all others (nice 19, if
`--attackers-priority` says nothing else); all of them go before other sessions, if the kernel groups processes by
sessions (autogroup). With `--etcd`
a real etcd is attacked the same way, and its figures are printed below Polder's.

A virtual machine's host may take processors away (`steal` in /proc/stat): for a hundredth of a second in each, and
every p99 is its own. A trial that misses nothing but times, and from which more than `--stolen` was taken, says
nothing of the server; it is repeated in a calmer moment, `--tries` times at most, and the last one counts.
"""
import argparse, multiprocessing, os, shutil, signal, subprocess, sys, tempfile, threading, time
import urllib.request

import attacks
from wire import *


class Server:
    running = []

    def __init__(self, words, port, priority):
        self.directory = tempfile.mkdtemp(prefix="polder-hostile-")
        self.address = ("127.0.0.1", port)
        self.log = open(self.directory + "/log", "wb")
        words = [*words, "--name=hostile", f"--data-dir={self.directory}/data",
                 f"--listen-client-urls=http://127.0.0.1:{port}",
                 f"--advertise-client-urls=http://127.0.0.1:{port}",
                 f"--listen-peer-urls=http://127.0.0.1:{port + 1}",
                 f"--initial-advertise-peer-urls=http://127.0.0.1:{port + 1}",
                 f"--initial-cluster=hostile=http://127.0.0.1:{port + 1}"]
        self.process = subprocess.Popen(
            words, stdout=self.log, stderr=self.log,
            preexec_fn=lambda: prioritise("-10" if priority == "real" else priority))
        Server.running.append(self)
        end = time.time() + 60
        while time.time() < end:
            try:
                Connection(self.address).call(PUT, put_request(b"k", b"v"))
                if priority == "real":
                    self.hurry()
                return
            except (OSError, Gone):
                time.sleep(0.1)
        raise SystemExit(f"the server does not come up: {self.directory}/log")

    def hurry(self):
        """The loop and the log wait for nobody; the store's own threads do."""
        for task in os.listdir(f"/proc/{self.process.pid}/task"):
            with open(f"/proc/{self.process.pid}/task/{task}/comm") as name:
                if name.read().startswith(("NIO-ELT", "polder")):
                    os.sched_setscheduler(int(task), os.SCHED_RR, os.sched_param(1))

    def memory(self, name="VmRSS"):
        try:
            with open(f"/proc/{self.process.pid}/status") as status:
                for line in status:
                    if line.startswith(name + ":"):
                        return int(line.split()[1]) >> 10
        except OSError:
            pass
        return 0

    def cpu(self): return cpu(self.process.pid)

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


def cpu(pid):
    """Seconds, of all threads."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            words = stat.read().rsplit(")", 1)[1].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError):
        return 0


def prioritise(to):
    """A niceness; "real": before all that has one."""
    try:
        if to == "real":
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        else:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
            os.setpriority(os.PRIO_PROCESS, 0, int(to))
    except OSError:
        pass


def before_other_sessions(nice):
    """What was there before; None: the kernel does not group by sessions, or we may not."""
    try:
        with open("/proc/self/autogroup") as file:
            before = int(file.read().split()[-1])
        with open("/proc/self/autogroup", "w") as file:
            file.write(str(nice))
        return before
    except (OSError, ValueError, IndexError):
        return None


def stolen():
    """Milliseconds that the host has taken from this machine's processors so far."""
    with open("/proc/stat") as stat:
        return int(stat.readline().split()[8]) * 1000 / os.sysconf("SC_CLK_TCK")


def await_calm(seconds=60):
    end = time.time() + seconds
    while time.time() < end:
        before = stolen()
        time.sleep(3)
        if stolen() - before < 10:
            return


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


def attack(work, address, seconds, queue, priority):
    prioritise(priority)
    try:
        queue.put(work(address, seconds))
    except Exception as error:
        queue.put(f"{type(error).__name__}: {error}")


def burn(share, seconds, priority):
    """Uses so much of a CPU, like an attacker that leaves the server alone."""
    prioritise(priority)
    end = time.time() + seconds
    while time.time() < end:
        began = time.process_time()
        start = time.time()
        while time.process_time() - began < share * 0.01:
            if time.time() > end:
                return
        time.sleep(max(0, 0.01 - (time.time() - start)))


def beside_control(server, shares, options):
    seconds = options.seconds / 2
    burners = [multiprocessing.Process(target=burn, args=(share, seconds + 1, options.attackers_priority))
               for share in shares]
    for burner in burners:
        burner.start()
    time.sleep(0.5)
    times, failed = observed(server, seconds, options.priority)
    for burner in burners:
        burner.join(5)
        if burner.is_alive():
            burner.kill()
    return times, failed


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
        multiprocessing.Process(
            target=attack, args=(work, server.address, options.seconds + 2, queue, options.attackers_priority))
        for _ in range(options.attackers)]
    for attacker in attackers:
        attacker.start()
    time.sleep(2)
    used, began = server.cpu(), time.time()
    theirs = [cpu(attacker.pid) for attacker in attackers]
    taken = stolen()
    during, failed = observed(server, options.seconds, options.priority)
    spent = time.time() - began
    taken = (stolen() - taken) / spent
    used = (server.cpu() - used) / spent
    shares = [min(1, max(0, cpu(a.pid) - before) / spent) for a, before in zip(attackers, theirs)]
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
    control, failed_beside = beside_control(server, shares, options)
    serves = server.is_alive() and bool(after["get"]) and not failed_after
    row = {"name": work.__name__, "base": base, "peak": peak[0], "after": server.memory(), "words": words,
           "cpu": used, "theirs": sum(shares), "serves": serves, "failed": failed, "problems": [], "stolen": taken}
    for kind in ("get", "put"):
        was, now = p99(before[kind] + [(t + 1000, x) for t, x in after[kind]]), p99(during[kind])
        beside = p99(control[kind])
        allowed = max(2 * was, 2 * beside, options.floor)
        row[kind] = (was, beside, now)
        if now > allowed:
            row["problems"].append(f"{kind} p99 {now:.1f} ms, {allowed:.1f} allowed")
    failed_before += failed_beside
    if failed or failed_before:
        row["problems"].append(f"{len(failed)} calls failed: {(failed or failed_before)[0][:60]}")
    if peak[0] > options.memory:
        row["problems"].append(f"{peak[0]} MiB")
    if not serves:
        row["problems"].append("does not serve afterwards")
    only_times = bool(row["problems"]) and all("p99" in problem for problem in row["problems"])
    row["disturbed"] = only_times and taken > options.stolen
    return row


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--polder", default=".build/release/polder")
    parser.add_argument("--only")
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--port", type=int, default=23800)
    parser.add_argument("--attackers", type=int, default=1)
    parser.add_argument("--memory", type=int, default=1200, help="MiB")
    parser.add_argument("--floor", type=float, default=1, help="milliseconds")
    parser.add_argument("--tries", type=int, default=5)
    parser.add_argument("--stolen", type=float, default=5, help="milliseconds a second, of all processors together")
    parser.add_argument("--etcd", help="is attacked too")
    parser.add_argument("--priority", default="-10",
                        help="niceness of the server and of the measuring client; real: they wait for nobody else, which"
                        " measures the server on a machine that has other work")
    parser.add_argument("--attackers-priority", default="19",
                        help="of attackers and control; on a machine with other work they need more than that")
    options = parser.parse_args()
    chosen = [a for a in attacks.ALL if not options.only or options.only in a.__name__]
    if not chosen:
        raise SystemExit(f"no attack is called {options.only}")
    attacks.raise_limit()
    group = before_other_sessions(-20)
    print("get and put: p99 in ms at rest, beside the control, during the attack; CPU: the server's, the attackers'")
    print(f"{'attack':22} {'get':>20} {'put':>20} {'MiB before/peak/after':>22}   CPU        verdict")
    polder = [os.path.abspath(options.polder), "etcd"]
    try:
        bad = trials(chosen, polder, options)
        if options.etcd:
            print(f"\n{options.etcd}, for comparison:")
            trials(chosen, [options.etcd], options)
    finally:
        for running in list(Server.running):
            running.stop()
        if group is not None:
            before_other_sessions(group)
    print(f"{len(chosen) - bad} of {len(chosen)} good")
    sys.exit(1 if bad else 0)


def show(row, repeats):
    shown = [" ".join(f"{x:6.2f}" for x in row[k]) for k in ("get", "put")]
    verdict = "; ".join(row["problems"]) or "good"
    if row["disturbed"]:
        verdict += f"; the host took {row['stolen']:.0f} ms a second" + (": once more" if repeats else "")
    print(f"{row['name']:22} {shown[0]} {shown[1]} {row['base']:>8} {row['peak']:>6} {row['after']:>6}  "
          f"{row['cpu']:>4.0%} {row['theirs']:>4.0%}  {verdict}  [{row['words'][0]}]", flush=True)


def trials(chosen, words, options):
    bad, server = 0, None
    for work in chosen:
        if server is None:
            server = Server(words, options.port, options.priority)
            fill(server.address, 64)
        for tries_left in reversed(range(options.tries)):
            row = trial(server, work, options)
            repeats = row["disturbed"] and tries_left > 0
            show(row, repeats)
            if not repeats:
                break
            await_calm()
        bad += bool(row["problems"])
        if not server.is_alive():
            print(f"  the server has ended with {server.process.returncode}: {server.directory}/log")
            Server.running.remove(server)
            server = None
        elif row["after"] > 3 * max(row["base"], 200):
            # Whatever is left would be counted against the next one.
            server.stop()
            server = None
    if server:
        server.stop()
    return bad


if __name__ == "__main__":
    main()
