#!/usr/bin/env python3
"""A server on the GPU over HTTP, with the standard library alone: answers, the same answers in a
crowd (--deterministic), and a thousand requests that are left early.

  bench/gpu/serve.py KVASIR MODEL [--requests 1000]
"""

import argparse
import concurrent.futures
import http.client
import json
import random
import socket
import subprocess
import sys
import time

PROMPTS = [
    "The capital of France is",
    "def quicksort(items):\n",
    "Once upon a time there was a fox who",
    "Water boils at",
]
SAMPLINGS = [
    {"temperature": 0},
    {"temperature": 0.8, "seed": 7},
    {"temperature": 0.8, "seed": 7, "top_p": 0.9},
    {"temperature": 1, "seed": 7, "top_k": 40, "top_p": 0.95},
]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    def __init__(self, kvasir, model, *flags):
        self.port = free_port()
        begin = time.monotonic()
        self.process = subprocess.Popen(
            [kvasir, "serve", model, "--device", "cuda", "--port", str(self.port), *flags]
        )
        while True:
            if self.process.poll() is not None:
                sys.exit(f"the server ended with {self.process.returncode}")
            try:
                if self.get("/ready")[0] == 200:
                    break
            except OSError:
                pass
            time.sleep(0.05)
        self.seconds = time.monotonic() - begin

    def connect(self, timeout=120):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def get(self, path):
        http_connection = self.connect()
        http_connection.request("GET", path)
        response = http_connection.getresponse()
        return response.status, response.read().decode()

    def complete(self, prompt, **fields):
        http_connection = self.connect()
        body = {"prompt": prompt, "max_tokens": 64, **fields}
        headers = {"Content-Type": "application/json"}
        http_connection.request("POST", "/v1/completions", json.dumps(body), headers)
        response = http_connection.getresponse()
        answer = json.loads(response.read())
        if response.status != 200:
            sys.exit(f"{response.status}: {answer}")
        return answer["choices"][0]["text"]

    def held_blocks(self):
        for line in self.get("/metrics")[1].splitlines():
            if line.startswith("kvasir_kv_blocks{") and 'state="held"' in line:
                return float(line.split()[-1])
        sys.exit("no metric of held blocks")

    def stop(self):
        self.process.terminate()
        return self.process.wait(timeout=60)


JOBS = [(p, s) for p in range(len(PROMPTS)) for s in range(len(SAMPLINGS))]


def answer(server, job):
    return server.complete(PROMPTS[job[0]], **SAMPLINGS[job[1]])


def crowd(server, copies):
    """The answers of all jobs at once, each `copies` times."""
    jobs = JOBS * copies
    with concurrent.futures.ThreadPoolExecutor(len(jobs)) as threads:
        return list(zip(jobs, threads.map(lambda job: answer(server, job), jobs)))


def leave_early(server, seed):
    """Sends a request and goes away at a random moment."""
    choose = random.Random(seed)
    body = json.dumps(
        {
            "prompt": [choose.randrange(1000, 40000) for _ in range(choose.randint(1, 300))],
            "max_tokens": choose.randint(1, 60),
            "n": choose.choice([1, 1, 3]),
            "stream": True,
            "seed": seed,
        }
    ).encode()
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        connection.settimeout(choose.choice([0.001, 0.02, 0.1, 1.0]))
        try:
            while connection.recv(4096):
                pass
        except TimeoutError:
            pass


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kvasir")
    parser.add_argument("model")
    parser.add_argument("--requests", type=int, default=1000)
    options = parser.parse_args()
    failed = False
    for flags in (["--deterministic"], []):
        server = Server(options.kvasir, options.model, *flags)
        print(f"{flags or 'fast'}: ready after {server.seconds:.2f} s")
        alone = {job: answer(server, job) for job in JOBS}
        if flags:
            print(json.dumps({p: alone[i, 0] for i, p in enumerate(PROMPTS)}, indent=1))
        answers = crowd(server, 8)
        different = sum(text != alone[job] for job, text in answers)
        print(f"{flags or 'fast'}: {different} of {len(answers)} answers in a crowd differ")
        failed = failed or (flags and different > 0)
        with concurrent.futures.ThreadPoolExecutor(32) as threads:
            list(threads.map(lambda seed: leave_early(server, seed), range(options.requests)))
        end = time.monotonic() + 30
        while server.held_blocks() > 0 and time.monotonic() < end:
            time.sleep(0.1)
        held, code = server.held_blocks(), server.stop()
        print(f"{flags or 'fast'}: {options.requests} left early, {held:.0f} blocks held, exit code {code}")
        failed = failed or held > 0 or code != 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
