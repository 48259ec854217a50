#!/usr/bin/env python3
"""Kvasir beside llama.cpp's server: same weights, same load generator, turn by turn.

Prompts are unique token ids, so nothing is cached; answers have equal lengths. Each round measures
Kvasir and llama.cpp with flash attention on and off, every other round in the opposite order; the
ratio of a round is against the better of the two. Prints the flags of the servers, what llama.cpp
says of its build, the medians, and the median ratio with an interval that holds the true median
with a probability of at least 95 % (from six rounds on). The last line is all of it as JSON.
"""

import argparse
import atexit
import json
import math
import pathlib
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
KVASIR = ROOT / "build/release/kvasir"
# name, options of `kvasir bench`, figure, target ratio
CASES = [
    ("prefill 512, tok/s", ["--max-concurrency", "1", "--input-len", "512", "--output-len", "1"],
     lambda r: 512e3 / r["ttft_ms"]["p50"], 3.0),
    ("decode batch 1, tok/s", ["--max-concurrency", "1", "--input-len", "16", "--output-len", "128"],
     lambda r: 1e3 / r["tpot_ms"]["p50"], 1.5),
    ("16 streams, output tok/s", ["--max-concurrency", "16", "--input-len", "64", "--output-len", "128"],
     lambda r: r["output_tokens_per_s"], 3.0),
]
PROMPTS = {"prefill 512, tok/s": 4, "decode batch 1, tok/s": 2, "16 streams, output tok/s": 16}


def system_info(llama_server):
    """The line in which llama.cpp names the instruction sets that it was built for."""
    # It is written only at this verbosity, and before the model is looked for.
    done = subprocess.run([llama_server, "-m", "none", "-lv", "4"], capture_output=True, text=True)
    found = re.search(r"system_info: .*", done.stdout + done.stderr)
    if found is None:
        raise SystemExit(f"{llama_server} does not say what it was built for")
    return found.group().strip()


def median_interval(values):
    """Order statistics around the median: at least 95 %, or the whole range of too few values."""
    n = len(values)
    below, rank = 0.5**n, 0  # the chance that at most `rank` values lie below the true median
    while below + math.comb(n, rank + 1) * 0.5**n <= 0.025:
        rank += 1
        below += math.comb(n, rank) * 0.5**n
    ordered = sorted(values)
    return ordered[rank], ordered[n - 1 - rank]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    def __init__(self, name, command, port):
        self.name, self.url = name, f"http://127.0.0.1:{port}"
        self.command = " ".join(map(str, command))
        print(f"{name}: {self.command}")
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        atexit.register(self.stop)
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(self.url + "/health", timeout=1)
                return
            except OSError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise SystemExit(f"{name} did not start")
                time.sleep(0.1)

    def measure(self, case, seed):
        name, options, figure, _ = case
        with tempfile.NamedTemporaryFile("r") as out:
            done = subprocess.run(
                [KVASIR, "bench", "--url", self.url, "--json", out.name, "--seed", str(seed),
                 "--num-prompts", str(PROMPTS[name]), *options,
                 "--extra-body", '{"cache_prompt": false}'],
                capture_output=True, text=True)
            if done.returncode != 0:
                raise SystemExit(f"{self.name}: {done.stdout}{done.stderr}")
            report = json.load(out)
        expected = PROMPTS[name] * int(options[options.index("--output-len") + 1])
        if report["output_tokens"] != expected or report["cached_tokens"] != 0:
            raise SystemExit(f"{self.name}: {report['output_tokens']} output tokens for {expected}, "
                             f"{report['cached_tokens']} cached")
        return figure(report)

    def stop(self):
        self.process.terminate()
        self.process.wait()


def measure_round(servers, case, seed):
    order = servers if seed % 2 == 0 else servers[::-1]
    figures = {server.name: server.measure(case, seed) for server in order}
    return [figures[server.name] for server in servers]


def compare(servers, number, rounds):
    """Measures one case in all rounds, prints and returns its figures."""
    case = CASES[number]
    # The first round warms up. Every round has prompts of its own.
    rows = [measure_round(servers, case, 1000 * number + i) for i in range(rounds + 1)][1:]
    ratios = [row[0] / max(row[1:]) for row in rows]
    medians = [statistics.median(column) for column in zip(*rows)]
    ratio, (low, high) = statistics.median(ratios), median_interval(ratios)
    figures = ", ".join(f"{s.name} {m:.1f}" for s, m in zip(servers, medians))
    print(f"{case[0]}: {figures}; ratio {ratio:.2f} [{low:.2f}, {high:.2f}] (target {case[3]})",
          flush=True)
    return {"medians": {s.name: m for s, m in zip(servers, medians)}, "ratio": ratio,
            "interval": [low, high], "target": case[3], "ratios": ratios}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--llama-server", default=next(iter(
        (ROOT / "build/peers").rglob("llama-server")), None))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers are stopped
    if args.llama_server is None:
        raise SystemExit("llama-server is missing: bench/peers/setup.sh builds it")
    info = system_info(args.llama_server)
    ports = [free_port() for _ in range(3)]
    peer = [args.llama_server, "-m", args.model, "-t", str(args.threads), "-np", "16",
            "-c", str(16 * 1024), "--port"]
    servers = [
        Server("kvasir", [KVASIR, "serve", args.model, "--threads", str(args.threads), "--port",
                          str(ports[0])], ports[0]),
        Server("llama.cpp -fa on", [*peer, str(ports[1]), "-fa", "on"], ports[1]),
        Server("llama.cpp -fa off", [*peer, str(ports[2]), "-fa", "off"], ports[2]),
    ]
    print(f"llama.cpp: {info}", flush=True)
    cases = {case[0]: compare(servers, number, args.rounds) for number, case in enumerate(CASES)}
    print(json.dumps({"servers": {s.name: s.command for s in servers}, "llama_cpp": info,
                      "rounds": args.rounds, "cases": cases}))


if __name__ == "__main__":
    main()
