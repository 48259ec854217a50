#!/usr/bin/env python3
"""Sends thousands of requests, leaves most of them early, and checks that nothing is kept.

  .venv/bin/python tests/soak/cancel_soak.py [--requests 10000]

Prints RSS and blocks as it goes. Exits 1 if blocks stay held, or if memory grows after the first
quarter of the requests.
"""

import argparse
import asyncio
import pathlib
import random
import sys

import httpx

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from conftest import Server  # noqa: E402

CONCURRENT = 24
ALLOWED_GROWTH = 16 << 20  # bytes


def rss(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) << 10
    raise RuntimeError("no VmRSS")


async def one_request(http, seed):
    """One request, streamed or not, that is left at a random moment: never, at once, or later."""
    choose = random.Random(seed)
    shared = [choose.randrange(4) + 100] * choose.choice([0, 64, 200])
    body = {
        "prompt": shared + [choose.randrange(1000, 40000) for _ in range(choose.randint(1, 80))],
        "max_tokens": choose.randint(1, 30),
        "n": choose.choice([1, 1, 1, 3]),
        "stream": choose.random() < 0.8,
        "priority": choose.randint(-1, 1),
        "seed": seed,
    }
    patience = choose.choice([None, 0.001, 0.02, 0.1, 0.5])
    try:
        async with asyncio.timeout(patience):
            async with http.stream("POST", "/v1/completions", json=body) as response:
                async for _ in response.aiter_lines():
                    pass
                return response.status_code
    except (TimeoutError, httpx.HTTPError):
        return "left"


async def wave(url, seeds):
    limits = httpx.Limits(max_connections=CONCURRENT)
    gate = asyncio.Semaphore(CONCURRENT)

    async def gated(http, seed):
        async with gate:
            return await one_request(http, seed)

    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60) as http:
        return await asyncio.gather(*(gated(http, seed) for seed in seeds))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10000)
    parser.add_argument("--waves", type=int, default=20)
    options = parser.parse_args()
    # A small KV cache, all of it touched soon: its pages count as RSS only once they are used.
    server = Server("--max-queue", "64", "--kv-cache-memory", "128MiB")
    per_wave = max(1, options.requests // options.waves)
    memory, outcomes = [], {}
    for i in range(options.waves):
        for outcome in asyncio.run(wave(server.url, range(i * per_wave, (i + 1) * per_wave))):
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
        server.wait_for_metric("kvasir_kv_blocks", 0, seconds=30, state="held")
        memory.append(rss(server.process.pid))
        print(f"{(i + 1) * per_wave:6} requests  RSS {memory[-1] / 2**20:.1f} MiB  {outcomes}")
    growth = memory[-1] - max(memory[: max(1, options.waves // 4)])
    code = server.stop()
    print(f"exit code {code}, growth after the first quarter {growth / 2**20:.1f} MiB")
    return 0 if code == 0 and growth <= ALLOWED_GROWTH and set(outcomes) <= {200, 429, "left"} else 1


if __name__ == "__main__":
    sys.exit(main())
