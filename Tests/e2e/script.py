"""What the scripts beside e2e.py have in common: their arguments, and checks that are printed and counted."""
import argparse, shutil

failures = []


def arguments(port, more=lambda parser: None):
    parser = argparse.ArgumentParser()
    parser.add_argument("polder")
    parser.add_argument("etcdctl", nargs="?", default=shutil.which("etcdctl") or "etcdctl")
    parser.add_argument("--port", type=int, default=port)
    more(parser)
    return parser.parse_args()


def check(what, condition, detail=""):
    print(("ok    " if condition else "FAIL  ") + what + ("" if condition else f": {detail}"), flush=True)
    if not condition:
        failures.append(what)
    return condition
