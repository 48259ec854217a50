#!/usr/bin/env python3
"""What a long prompt costs the streams beside it, and what they cost it.

Eight streams decode. Then a prompt of 4,000 tokens that no other shares arrives. In each round:
  gap ratio   the longest gap of any stream while the prompt is computed / the median gap before
  TTFT ratio  the prompt's time to first token beside the streams / that of another such prompt on
              the idle server, measured just before
Prints the medians of the rounds. The first round warms up.
"""

import itertools
import json
import selectors
import socket
import statistics
import sys
import time

from serving import failed, options_parser, random_ids, report, start_server

STREAMS, STREAM_PROMPT, LONG_PROMPT = 8, 64, 4000
GAP_TARGET, TTFT_TARGET = 4, 2.5


class Stream:
    """A streamed completion over a plain socket: a client library's work would cost the server's
    cores. A time is kept for each read that brought events."""

    def __init__(self, url, body, path="/v1/completions"):
        host, port = url.removeprefix("http://").split(":")
        data = json.dumps({**body, "stream": True}).encode()
        self.received, self.times, self.done = [], [], False
        self.socket = socket.create_connection((host, int(port)))
        self.sent = time.monotonic()
        self.socket.sendall(b"POST %s HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n\r\n%s"
                            % (path.encode(), len(data), data))

    def read(self):
        data = self.socket.recv(1 << 16)
        now = time.monotonic()
        self.received.append(data)
        if b"data: " in data:
            self.times.append(now)
        self.done = self.done or b"[DONE]" in data or not data

    def events(self):
        lines = b"".join(self.received).decode().splitlines()
        data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
        return [json.loads(event) for event in data if event != "[DONE]"]

    def gaps(self, begin, end):
        """Those of which any part lies between the two moments."""
        return [b - a for a, b in itertools.pairwise(self.times) if b > begin and a < end]


def pump(streams, until):
    """Reads from the streams until the condition holds."""
    with selectors.DefaultSelector() as selector:
        for stream in streams:
            if not stream.done:
                selector.register(stream.socket, selectors.EVENT_READ, stream)
        while not until() and selector.get_map():
            for key, _ in selector.select(0.1):
                key.data.read()
                if key.data.done:
                    selector.unregister(key.data.socket)


def long_prompt(url, seed):
    return Stream(url, {"prompt": random_ids(LONG_PROMPT, f"long {seed}"), "max_tokens": 1,
                        "stream_options": {"include_usage": True}})


def short_streams(url, seed):
    # With token ids in it there is an event for every token, even where text is held back.
    body = {"max_tokens": 4000, "ignore_eos": True, "return_token_ids": True}
    return [Stream(url, {"prompt": random_ids(STREAM_PROMPT, f"stream {seed} {i}"), **body})
            for i in range(STREAMS)]


def faults_of(streams, prompts):
    for stream in streams:
        if stream.done:
            yield f"a stream ended early: {stream.received[-1][-300:]!r}"
    for prompt in prompts:
        usage = prompt.events()[-1].get("usage") or {}
        wanted = (LONG_PROMPT, 1, 0)
        cached = usage.get("prompt_tokens_details", {}).get("cached_tokens")
        if (usage.get("prompt_tokens"), usage.get("completion_tokens"), cached) != wanted:
            yield f"the usage of a long prompt is {usage}"


def one_round(url, seed, settle):
    alone = long_prompt(url, f"{seed} alone")
    pump([alone], lambda: alone.done)
    streams = short_streams(url, seed)
    pump(streams, lambda: all(len(stream.times) >= 3 for stream in streams))
    begin = time.monotonic()
    pump(streams, lambda: time.monotonic() > begin + settle)
    beside = long_prompt(url, f"{seed} beside")
    pump([*streams, beside], lambda: beside.done)
    # The gap that the last step of the prompt made ends with the event after it.
    pump(streams, lambda: all(stream.times[-1] > beside.times[0] for stream in streams))
    faults = list(faults_of(streams, [alone, beside]))
    for stream in [*streams, alone, beside]:
        stream.socket.close()
    before = statistics.median(gap for s in streams for gap in s.gaps(begin, beside.sent))
    longest = max(gap for s in streams for gap in s.gaps(beside.sent, beside.times[0]))
    ttft = [prompt.times[0] - prompt.sent for prompt in (alone, beside)]
    return {"median_gap_ms": 1e3 * before, "longest_gap_ms": 1e3 * longest,
            "gap_ratio": longest / before, "ttft_alone_ms": 1e3 * ttft[0],
            "ttft_beside_ms": 1e3 * ttft[1], "ttft_ratio": ttft[1] / ttft[0]}, faults


def main():
    parser = options_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--settle", type=float, default=3, help="seconds of decoding before")
    options = parser.parse_args()
    server = start_server(options)
    rounds, faults = [], []
    try:
        for seed in range(options.rounds + 1):
            figures, wrong = one_round(server.url, seed, options.settle)
            server.wait_for_metric("kvasir_kv_blocks", 0, state="held")
            faults += wrong
            if seed > 0:
                rounds.append({name: round(value, 3) for name, value in figures.items()})
                print("  ".join(f"{k} {v:.2f}" for k, v in figures.items()), flush=True)
    finally:
        server.stop()
    median = {name: round(statistics.median(r[name] for r in rounds), 2) for name in rounds[0]}
    targets = {"gap_ratio": f"<= {GAP_TARGET}", "ttft_ratio": f"<= {TTFT_TARGET}"}
    rows = [(f"median {name}", value, targets.get(name, "")) for name, value in median.items()]
    report("long_prompt_gap", server, rows, {"rounds": rounds})
    return failed(faults)


if __name__ == "__main__":
    sys.exit(main())
