#!/usr/bin/env python3
"""Random kills, freezes, stops and cuts of real processes, under load from real etcdctl.

Afterwards: no acknowledged write is lost in either region, no revision was given twice, all members of a
region hold the same history, and what clients of a few keys saw is linearizable (the history is a file that
`polder check` and checkers of others read: docs/formats.md, "Histories"). One node of a region is hurt at a time: a majority always runs.

  Tests/e2e/chaos.py --polder .build/release/polder [--seconds 120] [--seed 1] [--keep] [--history FILE]
"""
import argparse, base64, os, random, shutil, sys, time

import histories
from cluster import Cluster, Load, eventually


def hurt(c, action, name):
    if action == "cut":
        ones = [n for n in c.nodes if n.startswith("r1-")]
        for one in ones:
            c.http("/polder/fault?peer=r2&block=true", at=one, method="POST")
        time.sleep(random.uniform(0.5, 4))
        for one in ones:
            c.http("/polder/fault?peer=r2", at=one, method="POST")
    elif action == "freeze":
        c.dev_node("freeze", name)
        time.sleep(random.uniform(0.3, 4))
        c.dev_node("thaw", name)
    else:
        c.dev_node(action, name)
        time.sleep(random.uniform(0.1, 4))
        answer = c.dev_node("start", name)
        if not answer.ok:
            raise RuntimeError(f"{name} does not start again: {answer}")
    time.sleep(random.uniform(0, 2))


def lost(c, load, region):
    got = c.etcdctl("get", load.prefix, "--prefix", "-w", "json", region=region, timeout=60)
    if not got.ok:
        return [repr(got)]
    text = lambda value: base64.b64decode(value).decode()
    held = {text(kv["key"]): text(kv["value"]) for kv in got.json.get("kvs", [])}
    return [key for key, value in load.acknowledged.items() if held.get(key) != value]


def verdict(c, loads, clients, path):
    histories.write(path, (each for client in clients for each in client.lines))
    checked, good = histories.check(c.polder, path)
    print(f"  history: {sum(x.answers for x in clients)} answers, {sum(x.unknown for x in clients)} without; "
          f"{str(checked.out).strip().splitlines()[-1:]}", flush=True)
    for load in loads:
        for region in ("r1", "r2"):
            eventually(lambda: not lost(c, load, region), 60, 0.5)
            missing = lost(c, load, region)
            good = good and not missing
            print(f"  {load.prefix} in {region}: {len(load.acknowledged)} acknowledged, "
                  f"{len(missing)} lost {missing[:3]}")
        twice = len(load.revisions) - len(set(load.revisions))
        good = good and not twice
        print(f"  {load.prefix}: {len(load.failed)} errors, slowest {load.slowest:.1f} s, "
              f"{twice} revisions given twice")
    first = set(loads[0].revisions) & set(loads[1].revisions)
    good = good and not first
    for region in ("r1", "r2"):
        def equal():
            got = c.etcdctl("endpoint", "hashkv", "-w", "json", region=region)
            return got.ok and len({h["HashKV"]["hash"] for h in got.json}) == 1
        same = eventually(equal, 20)
        good = good and bool(same)
        print(f"  {region}: members hold {'the same' if same else 'DIFFERENT'} histories")
    return good


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--polder", default=".build/release/polder")
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--keep", action="store_true", help="keep data and logs")
    parser.add_argument("--history", help="where the history goes (else beside the logs, kept with them)")
    options = parser.parse_args()
    random.seed(options.seed)
    print(f"seed {options.seed} (the faults; not the timing of the machine)", flush=True)
    c = Cluster(options.polder, shutil.which("etcdctl"), regions=2, nodes=3,
                flags=["--enable-fault-injection"])
    good = False
    try:
        loads = [Load(c, "one/"), Load(c, "another/"), Load(c, "other-region/", region="r2")]
        names = [n for n in c.nodes if n.startswith("r1-")]
        clients = [histories.Client(c, number, names) for number in range(3)]
        for each in loads + clients:
            each.start()
        end = time.time() + options.seconds
        while time.time() < end:
            name, action = random.choice(list(c.nodes)), random.choice(("kill", "freeze", "stop", "cut"))
            print(f"{time.strftime('%T')} {action} {'the regions apart' if action == 'cut' else name}",
                  flush=True)
            hurt(c, action, name)
        for each in loads + clients:
            each.stop()
        time.sleep(2)
        path = options.history or f"{c.dir}/history.txt"
        sound, proof = histories.finds_what_is_wrong(options.polder, f"{c.dir}/wrong.txt")
        if not sound:
            print(f"polder check finds nothing: {proof}")
        good = verdict(c, loads, clients, path) and sound
    finally:
        if good and not options.keep:
            c.remove()
        else:
            c.stop()
            print(f"evidence: {c.dir}")
    print("PASS" if good else "FAIL")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
