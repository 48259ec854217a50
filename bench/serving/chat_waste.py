#!/usr/bin/env python3
"""How many prompt tokens of a chat are computed although the server had computed them before.

A system prompt of 500 tokens, then ten turns (--turns): 200 tokens from the user, 200 from the model. Each
prompt holds all turns before it. Waste is what is recomputed beyond the rounding to whole blocks,
as a share of all prompt tokens; it must be 0. The chat is held twice:
  ids       /v1/completions with token ids: the next prompt is exactly the ids before it and new ones
  messages  /v1/chat/completions: the next prompt holds the text of the answers, tokenized anew.
            Where that gives other ids than the model generated, the cache cannot serve the rest of
            that answer. This is inherent in prompts that are text, and reported on its own.
Then eight such chats (--chats) run at once with one system prompt, which must be computed once in all.
The figures come from usage.prompt_tokens_details.cached_tokens; the server's counters must agree.
"""

import concurrent.futures
import dataclasses
import random
import sys

from serving import ROOT, failed, options_parser, random_ids, report, start_server

SYSTEM_TOKENS, TURN_TOKENS = 500, 200
WORDS = (ROOT / "tests/data/golden/text/sonnets.txt").read_text().split()
# No end token, so that every answer has its full length, and the likeliest tokens.
ANSWER = {"max_tokens": TURN_TOKENS, "min_tokens": TURN_TOKENS, "temperature": 0,
          "return_token_ids": True}


@dataclasses.dataclass
class Turn:
    prompt: list[int]
    answer: list[int]
    cached: int


class IdChat:
    path = "/v1/completions"

    def __init__(self, http, system_seed, seed):
        self.http, self.seed = http, seed
        self.prompt = random_ids(SYSTEM_TOKENS, f"system {system_seed}")
        self.turns = []

    def next_body(self):
        number = len(self.turns)
        self.prompt = self.prompt + random_ids(TURN_TOKENS, f"user {self.seed} {number}")
        return {"prompt": self.prompt}

    def take(self, choice):
        self.prompt = self.prompt + choice["token_ids"]
        return choice["prompt_token_ids"]

    def turn(self):
        body = {**self.next_body(), **ANSWER}
        answer = ask(self.http, self.path, body)
        choice = answer["choices"][0]
        prompt = self.take({"prompt_token_ids": answer.get("prompt_token_ids"), **choice})
        cached = answer["usage"]["prompt_tokens_details"]["cached_tokens"]
        self.turns.append(Turn(prompt, choice["token_ids"], cached))
        self.last_body = body


class MessageChat(IdChat):
    path = "/v1/chat/completions"

    def __init__(self, http, system_seed, seed):
        super().__init__(http, system_seed, seed)
        self.messages = [{"role": "system",
                          "content": text(http, SYSTEM_TOKENS, f"system {system_seed}")}]

    def next_body(self):
        said = text(self.http, TURN_TOKENS, f"user {self.seed} {len(self.turns)}")
        self.messages = [*self.messages, {"role": "user", "content": said}]
        return {"messages": self.messages}

    def take(self, choice):
        said = {"role": "assistant", "content": choice["message"]["content"]}
        self.messages = [*self.messages, said]
        return choice["prompt_token_ids"]


def ask(http, path, body):
    response = http.post(path, json=body, timeout=600)
    response.raise_for_status()
    return response.json()


def text(http, tokens, seed):
    """Random words that make about this many tokens."""
    words = " ".join(random.Random(seed).choices(WORDS, k=tokens))
    ids = ask(http, "/tokenize", {"prompt": words})["tokens"]
    return ask(http, "/detokenize", {"tokens": ids[:tokens]})["prompt"].strip()


def common_prefix(a, b):
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


@dataclasses.dataclass
class Account:
    prompt: int = 0  # tokens of all prompts
    cached: int = 0
    reusable: int = 0  # whole blocks that the server has computed before
    inherent: int = 0  # not reusable, for the answer's text is tokenized to other ids
    uncached: int = 0  # what a server without a cache computes again of earlier prompts

    def percent(self, tokens):
        return round(100 * tokens / self.prompt, 3)

    @property
    def waste(self):
        return self.percent(self.reusable - self.cached)


def account(chats, block):
    """Adds up chats that ran at once and share nothing but their system prompt."""
    whole_blocks = lambda tokens: tokens // block * block  # noqa: E731
    total = Account()
    firsts = [chat.turns[0].prompt for chat in chats]
    shared = min(common_prefix(firsts[0], other) for other in firsts)
    total.reusable += (len(chats) - 1) * whole_blocks(shared)
    total.uncached += (len(chats) - 1) * shared
    for chat in chats:
        total.prompt += sum(len(turn.prompt) for turn in chat.turns)
        total.cached += sum(turn.cached for turn in chat.turns)
        for before, turn in zip(chat.turns, chat.turns[1:]):
            # The last token of an answer was drawn, never computed; neither is all of a prompt
            # ever taken from the cache.
            known = before.prompt + before.answer[:-1]
            most = len(turn.prompt) - 1
            reusable = whole_blocks(min(common_prefix(known, turn.prompt), most))
            total.reusable += reusable
            total.inherent += whole_blocks(min(len(known), most)) - reusable
            total.uncached += common_prefix(before.prompt, turn.prompt)
    return total


def counters(server):
    return {name: server.metric(f"kvasir_{name}")
            for name in ("prefill_tokens_computed_total", "num_preemptions_total")}


def hold(server, chats, turns):
    """Holds the turns of the chats, the chats at once; returns what the counters grew by."""
    before = counters(server)
    with concurrent.futures.ThreadPoolExecutor(len(chats)) as pool:
        list(pool.map(lambda chat: [chat.turn() for _ in range(turns)], chats))
    return {name: int(value - before[name]) for name, value in counters(server).items()}


def faults_of(name, chats, total, grown, cold):
    lengths = {len(turn.answer) for chat in chats for turn in chat.turns}
    if lengths != {TURN_TOKENS}:
        yield f"{name}: answers of {lengths} tokens"
    if grown["num_preemptions_total"]:
        yield f"{name}: {grown['num_preemptions_total']} preemptions: the KV cache is too small"
    computed = grown["prefill_tokens_computed_total"]
    if computed != total.prompt - total.cached:
        yield f"{name}: {computed} tokens computed, {total.prompt - total.cached} not cached"
    if total.waste != 0:
        yield f"{name}: {total.reusable} tokens are reusable, {total.cached} came from the cache"
    if cold != chats[0].turns[-1].answer:
        yield f"{name}: the last answer is another one without the cache"


def measure(server, name, kind, count, options):
    with server.http() as http:
        chats = [kind(http, name, f"{name} {i}") for i in range(count)]
        grown = hold(server, chats, options.turns)
        total = account(chats, options.block_size)
        body = {**chats[0].last_body, "cache_salt": "cold"}
        cold = ask(http, kind.path, body)["choices"][0]["token_ids"]
    rows = [(f"{name}: recomputed beyond whole blocks, %", total.waste, 0),
            (f"{name}: without a cache, %", total.percent(total.uncached), "")]
    if kind is MessageChat:
        rows.append((f"{name}: answers tokenized to other ids, %", total.percent(total.inherent),
                     "inherent"))
    if count > 1:
        firsts = [chat.turns[0] for chat in chats]
        shared = max(turn.cached for turn in firsts)
        times = sum(shared - turn.cached for turn in firsts) / max(1, shared)
        rows.append((f"{name}: system prompt computed, times", round(times, 3), 1))
    details = {**dataclasses.asdict(total), **grown}
    return rows, details, list(faults_of(name, chats, total, grown, cold))


def main():
    parser = options_parser(__doc__)
    parser.add_argument("--block-size", type=int, default=16)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--chats", type=int, default=8, help="at once")
    options = parser.parse_args()
    server = start_server(options, "--block-size", str(options.block_size),
                          "--kv-cache-memory", "2GiB")
    rows, details, faults = [], {}, []
    try:
        for name, kind, count in (("ids", IdChat, 1), ("messages", MessageChat, 1),
                                  ("ids, at once", IdChat, options.chats),
                                  ("messages, at once", MessageChat, options.chats)):
            more, details[name], wrong = measure(server, name, kind, count, options)
            print(f"{name}: {details[name]}", flush=True)
            rows += more
            faults += wrong
    finally:
        server.stop()
    report("chat_waste", server, rows, {"tokens": details})
    return failed(faults)


if __name__ == "__main__":
    sys.exit(main())
