#!/usr/bin/env python3
"""Asks the server for an answer to every schema of the suite, and judges all of them.

Valid schemas (schemas/*.json) are asked for greedily and at temperature 1. What ends by itself must
be JSON that the schema allows, formats asserted; at most 5 % of all may end at 1,024 tokens, and at
most 5 % of the schemas may be refused. Invalid schemas (invalid.json) must all be refused with a 400 that
names the place. Prints the figures and a last line of JSON; the exit code is 1 if any is violated.
"""

import argparse
import collections
import json
import pathlib
import sys

import suite

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/e2e"))
from conftest import Server  # noqa: E402


def options():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="default")
    parser.add_argument("--streams", type=int, default=16, help="requests at a time")
    parser.add_argument("--every", type=int, default=1, help="only every so many-th schema")
    parser.add_argument("--only", default="", help="only schemas with this in theme or name")
    parser.add_argument("--show", action="store_true", help="print every answer")
    parser.add_argument("flags", nargs="*", help="more flags of `kvasir serve`, after --")
    return parser.parse_args()


def progress(show):
    def at_each(outcome):
        if show:
            print(f"{outcome.label}: {outcome.finish_reason}, {outcome.tokens} tokens: "
                  f"{outcome.text}", flush=True)
    return at_each


def count(outcomes):
    answered = [o for o in outcomes if o.status == 200]
    figures = collections.Counter()
    figures["asked"] = len(outcomes)
    figures["refused"] = len(outcomes) - len(answered)
    figures["ended by length"] = sum(o.finish_reason != "stop" for o in answered)
    figures["stopped"] = sum(o.finish_reason == "stop" for o in answered)
    figures["stopped and valid"] = sum(o.finish_reason == "stop" and not o.fault for o in answered)
    figures["tokens"] = sum(o.tokens for o in answered)
    return dict(figures)


def faults_of(outcomes, figures):
    for outcome in outcomes:
        if outcome.status not in (200, 400):
            yield f"{outcome.label}: answered with {outcome.status}: {outcome.text}"
        elif outcome.fault:
            yield f"{outcome.label}: {outcome.fault}: {outcome.text}"
    if figures["ended by length"] > suite.MOST_BY_LENGTH * figures["asked"]:
        yield f"{figures['ended by length']} of {figures['asked']} ended by length"
    if figures["refused"] > suite.MOST_REFUSED * figures["asked"]:
        yield f"{figures['refused']} of {figures['asked']} valid schemas are refused"


def list_failures(outcomes):
    for outcome in outcomes:
        if outcome.status != 200 and outcome.sampling is suite.SAMPLINGS[0]:
            print(f"refused: {outcome.case.name}: {outcome.text}")
        elif outcome.finish_reason == "length":
            print(f"ended by length: {outcome.label}: ...{outcome.text[-120:]!r}")


def main():
    chosen = options()
    cases = [case for case in suite.cases() if chosen.only in case.name][:: chosen.every]
    server = Server(*chosen.flags, model=chosen.model)
    try:
        with server.http() as http:
            outcomes = suite.ask_all(http, cases, suite.SAMPLINGS, chosen.streams,
                                     progress(chosen.show))
            refusals = suite.ask_all(http, suite.invalid_cases(), suite.SAMPLINGS[:1],
                                     chosen.streams)
    finally:
        server.stop()
    list_failures(outcomes)
    report = {sampling.name: count([o for o in outcomes if o.sampling is sampling])
              for sampling in suite.SAMPLINGS}
    report["all"] = count(outcomes)
    for name, figures in report.items():
        print(f"{name}: {figures}")
    faults = list(faults_of(outcomes, report["all"]))
    wrong = [fault for fault in map(suite.refusal_fault, refusals) if fault]
    report["invalid"] = {"asked": len(refusals), "refused at the place": len(refusals) - len(wrong)}
    print(f"invalid: {report['invalid']}")
    for fault in faults + wrong:
        print(f"violated: {fault}", file=sys.stderr)
    print(json.dumps({"script": "structured", "figures": report}))
    return 1 if faults + wrong else 0


if __name__ == "__main__":
    sys.exit(main())
