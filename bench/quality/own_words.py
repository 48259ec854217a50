#!/usr/bin/env python3
"""A text in a model's own words, to calibrate it by: its answers at temperature 1 to questions of
many kinds. The same at every run.

  .venv/bin/python bench/quality/own_words.py OUT [--model PATH] [--answers 100]
"""

import argparse
import concurrent.futures
import itertools
import json
import pathlib
import sys
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/e2e"))
from conftest import Server  # noqa: E402

QUESTIONS = [
    "Write a sonnet about {}.",
    "Tell a long story about {}.",
    "Explain {} in detail.",
    "Write an essay on {}.",
    "Write a poem in old English about {}.",
]
SUBJECTS = [
    "love", "the sea", "a ship", "winter", "the moon", "a king", "time", "death", "a garden",
    "summer", "memory", "war", "truth", "a mountain", "music", "youth", "beauty", "a city",
    "the sun", "gold",
]  # fmt: skip
AT_ONCE = 16
TOKENS = 500  # of an answer at most


def answer(url, seed, question):
    body = {
        "messages": [{"role": "user", "content": question}],
        "max_tokens": TOKENS,
        "temperature": 1,
        "seed": seed,
    }
    request = urllib.request.Request(
        url + "/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as response:
        return json.load(response)["choices"][0]["message"]["content"]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--model", default="default")
    parser.add_argument("--answers", type=int, default=len(QUESTIONS) * len(SUBJECTS))
    options = parser.parse_args()
    asked = [q.format(s) for s, q in itertools.product(SUBJECTS, QUESTIONS)][: options.answers]
    server = Server(model=options.model)
    try:
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as threads:
            answers = list(threads.map(lambda a: answer(server.url, *a), enumerate(asked)))
    finally:
        server.stop()
    options.out.write_text("\n\n".join(answers), encoding="utf-8")
    print(f"{options.out}: {len(answers)} answers, {options.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
