#!/usr/bin/env python3
"""Sets the figures of anchors.cc beside floors and vLLM's.

  bench/gpu/report.py FILE    lines of JSON of ceilings.py and of anchors.cc, among others

A floor counts weights and KV read once at the bandwidth that ceilings.py measured on the same card,
and products at the best rate that it measured. vLLM: 0.26.0 on an H100 80GB HBM3 with its defaults,
the same shape in BF16, random weights; a range where machines differed.
"""

import json
import sys

LAYERS, HIDDEN, HEADS, KV_HEADS, DIM, FFN, VOCAB = 32, 4096, 32, 8, 128, 14336, 128256
LAYER_WEIGHTS = 2 * HIDDEN * HEADS * DIM + 2 * HIDDEN * KV_HEADS * DIM + 3 * HIDDEN * FFN
WEIGHT_BYTES = 2 * (LAYERS * LAYER_WEIGHTS + VOCAB * HIDDEN)  # that a step of decodes reads
KV_BYTES = LAYERS * 2 * KV_HEADS * DIM * 2  # of a token
CONTEXT = 896 + 256 // 2


def decode_floor(batch, ceilings):
    return batch * ceilings["read"] / (WEIGHT_BYTES + batch * CONTEXT * KV_BYTES)


def prefill_floor(length, ceilings):
    """Tokens a second of prompts of this length."""
    products = 2 * LAYERS * LAYER_WEIGHTS
    attention = 4 * LAYERS * HEADS * DIM * length / 2
    return ceilings["multiply"] / (products + attention)


def first_token_floor(length, ceilings):
    """Milliseconds: of the products, or of reading the weights."""
    return 1e3 * max(length / prefill_floor(length, ceilings), 1 / decode_floor(1, ceilings))


# Figure, vLLM's, its floor, and whether more is better.
ROWS = [
    ("decode, batch 1", "152", lambda c: decode_floor(1, c), True),
    ("decode, batch 32", "3,860", lambda c: decode_floor(32, c), True),
    ("decode, batch 256", "12,430", lambda c: decode_floor(256, c), True),
    ("prefill 8 x 2048", "41,400", lambda c: prefill_floor(2048, c), True),
    ("TTFT of 2048 tokens", "55", lambda c: first_token_floor(2048, c), False),
    ("TTFT of 512 tokens", "17", lambda c: first_token_floor(512, c), False),
    ("TTFT of 128 tokens", "13-17", lambda c: first_token_floor(128, c), False),
    ("TTFT on a prefix hit, 2048 + 64", "17.2", lambda c: 1e3 / decode_floor(1, c), False),
    ("64 requests at once, 2048 shared + 64 new", "277", None, True),
    ("throughput 1000/1000, 512 prompts", "7,087-7,556", None, True),
    ("throughput 128/128, 2000 prompts", "12,822-14,141", None, True),
    ("throughput 2048/128, 400 prompts", "1,903", None, True),
]


def shown(value):
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def main():
    figures = {}
    for line in open(sys.argv[1]):
        if line.startswith('{"figure"'):
            entry = json.loads(line)
            figures[entry["figure"]] = entry
    rates = [e["value"] for name, e in figures.items() if name.startswith("BF16 ")]
    ceilings = {}
    if "read" in figures and rates:
        ceilings = {"read": figures["read"]["value"] * 1e12, "multiply": max(rates) * 1e12}
    print("| | Kvasir | vLLM | floor | share of it |\n|---|---|---|---|---|")
    for name, vllm, floor_of, more in ROWS:
        if name not in figures:
            continue
        value, unit = figures[name]["value"], figures[name]["unit"]
        floor = floor_of(ceilings) if floor_of and ceilings else None
        share = (value / floor if more else floor / value) if floor else None
        print(f"| {name} | {shown(value)} {unit} | {vllm} | {shown(floor) if floor else ''} "
              f"| {f'{share:.0%}' if share else ''} |")
    start = [figures[n]["value"] for n in ("compile", "copy in and record") if n in figures]
    if start:
        print(f"| start | {sum(start):.1f} s | 76-83 | | |")


if __name__ == "__main__":
    main()
