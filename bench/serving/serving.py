"""What the scripts of this folder share: options, the server they measure, and their output."""

import argparse
import json
import pathlib
import random
import signal
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/e2e"))
from conftest import Server  # noqa: E402

FIRST_ID, LAST_ID = 1000, 40000  # ordinary tokens of every model that is measured here


def options_parser(doc):
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="default")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("flags", nargs="*", help="more flags of `kvasir serve`, after --")
    return parser


def start_server(options, *flags):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the caller stops it
    server = Server("--threads", str(options.threads), *flags, *options.flags, model=options.model)
    print(" ".join(map(str, server.process.args)), flush=True)
    return server


def random_ids(count, seed):
    choose = random.Random(seed)
    return [choose.randint(FIRST_ID, LAST_ID) for _ in range(count)]


def report(script, server, rows, details):
    """Prints rows of (figure, value, target) as a table, and all of it as one line of JSON."""
    table = [("figure", "value", "target"), *rows]
    widths = [max(len(str(row[i])) for row in table) for i in range(3)]
    for name, value, target in table:
        print(f"{name:{widths[0]}}  {value:>{widths[1]}}  {target}")
    figures = {name: {"value": value, "target": target} for name, value, target in rows}
    command = [str(word) for word in server.process.args]
    print(json.dumps({"script": script, "server": command, "figures": figures, **details}))


def failed(faults):
    """The exit code: 1, and what is wrong on stderr, if a property that is no timing is violated."""
    for fault in faults:
        print(f"violated: {fault}", file=sys.stderr)
    return 1 if faults else 0
