#!/usr/bin/env python3
"""What constraints, jump-forward and drafts cost and save.

  itl     16 streams with a schema and 16 without, in turn: the median inter-token latency of each.
          Both have the same prompts and as many tokens, and the server does not jump, so that both
          take as many passes. Temperature 1.
  jump    one JSON task after the other, of long names and fixed values, on a server that jumps and
          on one that does not: output tokens per second. Greedy.
  lookup  prompt lookup (--max-drafts) and none, one request at a time: decode tokens per second,
          from the first token to the last, where the model repeats a source file with one name
          changed (greedy), and on prose (temperature 1, for greedy prose soon repeats itself).
  draft   the same with a draft model; only with --draft-model.

Each round measures both sides on the same prompts, which no other round has, and the sides take
turns at being first; a figure is the median of the rounds' ratios. The first round warms up. The
token ids of both sides must be equal (jump, lookup, draft), and the counts of tokens right.
"""

import pathlib
import statistics
import sys
import textwrap

from long_prompt_gap import Stream, pump
from serving import ROOT, failed, options_parser, report, start_server

STREAMS = 16
ITL_TARGET, JUMP_TARGET, EDIT_TARGET, PROSE_TARGET = 1.05, 1.2, 1.5, 0.97
SONNETS = (ROOT / "tests/data/golden/text/sonnets.txt").read_text().split()

# Open enough to go on for as long as it is asked to.
PEOPLE = {
    "type": "array",
    "minItems": 1000,
    "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 40},
            "age": {"type": "integer", "minimum": 0, "maximum": 120},
            "email": {"type": "string", "format": "email", "maxLength": 40},
            "tags": {"type": "array", "items": {"type": "string", "maxLength": 20}, "maxItems": 3},
        },
        "required": ["name", "age", "email", "tags"],
        "additionalProperties": False,
    },
}


def fixed_object(properties):
    return {"type": "object", "properties": properties, "required": list(properties),
            "additionalProperties": False}


# An extraction as clients ask for it: most of the output follows from the schema.
SHIPMENT = fixed_object({
    "document_type": {"const": "international_shipping_manifest"},
    "schema_version": {"const": "2024-06-01"},
    "shipment_identifier": {"type": "string", "pattern": "^SHP-[0-9]{6}$"},
    "transportation_mode": {"enum": ["ocean_freight", "air_freight", "ground_transportation"]},
    "origin_address": fixed_object({
        "street_address_line_one": {"type": "string", "maxLength": 24},
        "city_or_municipality": {"type": "string", "maxLength": 16},
        "country_code_iso3166": {"enum": ["US", "DE", "JP", "BR"]},
    }),
    "total_declared_value": fixed_object({
        "amount_in_minor_units": {"type": "integer", "minimum": 100, "maximum": 99999},
        "currency_code_iso4217": {"enum": ["USD", "EUR", "JPY"]},
    }),
    "requires_temperature_control": {"type": "boolean"},
    "contains_hazardous_materials": {"type": "boolean"},
    "customs_clearance_status": {"enum": ["pending_inspection", "cleared_for_release",
                                          "held_by_customs_authority"]},
})

SOURCE = textwrap.dedent('''\
    """A ring buffer of samples with running statistics."""

    import math


    class {name}:
        def __init__(self, capacity):
            if capacity < 1:
                raise ValueError("capacity must be positive")
            self.capacity = capacity
            self.samples = []
            self.position = 0
            self.total = 0.0
            self.total_of_squares = 0.0

        def add(self, sample):
            if len(self.samples) < self.capacity:
                self.samples.append(sample)
            else:
                old = self.samples[self.position]
                self.total -= old
                self.total_of_squares -= old * old
                self.samples[self.position] = sample
            self.total += sample
            self.total_of_squares += sample * sample
            self.position = (self.position + 1) % self.capacity

        def mean(self):
            if not self.samples:
                return 0.0
            return self.total / len(self.samples)

        def variance(self):
            if len(self.samples) < 2:
                return 0.0
            mean = self.mean()
            return self.total_of_squares / len(self.samples) - mean * mean

        def standard_deviation(self):
            return math.sqrt(max(0.0, self.variance()))

        def oldest(self):
            if len(self.samples) < self.capacity:
                return self.samples[0]
            return self.samples[self.position]

        def newest(self):
            return self.samples[self.position - 1]

        def clear(self):
            self.samples = []
            self.position = 0
            self.total = 0.0
            self.total_of_squares = 0.0


    def summarize(samples, capacity={capacity}):
        window = {name}(capacity)
        for sample in samples:
            window.add(sample)
        return window.mean(), window.standard_deviation()
    ''')


class Answer:
    """What came of a stream that has ended."""

    def __init__(self, stream):
        choices = [event["choices"][0] for event in stream.events() if event.get("choices")]
        self.ids = [id for choice in choices for id in choice.get("token_ids") or []]
        self.finish_reason = next((c["finish_reason"] for c in choices if c["finish_reason"]), None)
        self.stream = stream
        self.sent, self.first, self.last = stream.sent, stream.times[0], stream.times[-1]
        first = next((c["token_ids"] for c in choices if c.get("token_ids")), [])
        self.later = len(self.ids) - len(first)  # tokens after the first event


def run(url, bodies, path="/v1/completions"):
    """The answers to requests that are sent at once."""
    streams = [Stream(url, {"return_token_ids": True, **body}, path) for body in bodies]
    pump(streams, lambda: False)
    for stream in streams:
        stream.socket.close()
    return [Answer(stream) for stream in streams]


def in_turn(number, sides):
    """Both sides' results; which goes first changes from round to round."""
    results = {}
    for name in (sides if number % 2 == 0 else reversed(sides)):
        results[name] = sides[name]()
    return results


def rounds_of(options, measure):
    """(figures of the rounds but the first, faults of all)."""
    figures, faults = [], []
    for number in range(options.rounds + 1):
        one, wrong = measure(number)
        faults += wrong
        if number > 0:
            figures.append({name: round(value, 4) for name, value in one.items()})
            print("  ".join(f"{k} {v:.3f}" for k, v in figures[-1].items()), flush=True)
    return figures, faults


def medians(part, figures, targets):
    for name in figures[0]:
        value = statistics.median(one[name] for one in figures)
        yield f"{part}: median {name}", round(value, 3), targets.get(name, "")


def itl_of(answers):
    """The median gap in ms while all streams run."""
    begin = max(answer.first for answer in answers)
    end = min(answer.last for answer in answers)
    if begin >= end:
        sys.exit("the streams never ran all at once: more --tokens")
    return 1e3 * statistics.median(
        gap for answer in answers for gap in answer.stream.gaps(begin, end))


def itl(options):
    server = start_server(options, "--no-jump-forward")

    def side(number, **constraint):
        body = {"max_tokens": options.tokens, "ignore_eos": True, "temperature": 1, **constraint}
        bodies = [{"prompt": f"{number}.{i} " + "A list of people who work here, as JSON:\n",
                   "seed": i, **body} for i in range(STREAMS)]
        return lambda: run(server.url, bodies)

    def measure(number):
        answers = in_turn(number, {"free": side(2 * number),
                                   "schema": side(2 * number + 1,
                                                  structured_outputs={"json": PEOPLE})})
        faults = [f"itl, {name}: an answer of {len(answer.ids)} tokens"
                  for name, side in answers.items() for answer in side
                  if len(answer.ids) != options.tokens]
        free, schema = itl_of(answers["free"]), itl_of(answers["schema"])
        return {"free ITL, ms": free, "schema ITL, ms": schema, "ratio": schema / free}, faults

    try:
        return server, *rounds_of(options, measure), {"ratio": f"<= {ITL_TARGET}"}
    finally:
        server.stop()


def compare(part, answers, plain, other):
    """What is wrong with the answers of two servers that must say the same."""
    for i, (a, b) in enumerate(zip(answers[plain], answers[other])):
        if a.ids != b.ids or a.finish_reason != b.finish_reason:
            yield f"{part}: answer {i} is another one: {a.ids} with {plain}, {b.ids} with {other}"
        if not a.ids:
            yield f"{part}: answer {i} is empty"


def jump(options):
    servers = {"plain": start_server(options, "--no-jump-forward"),
               "jumping": start_server(options, "--jump-forward")}

    def side(server, number):
        def measure():
            return [answer for i in range(options.tasks) for answer in run(server.url, [{
                "prompt": f"Shipment {number}.{i} of machine parts. The manifest as JSON:\n",
                "max_tokens": 600, "temperature": 0, "structured_outputs": {"json": SHIPMENT}}])]
        return measure

    def measure(number):
        sides = {name: side(server, number) for name, server in servers.items()}
        answers = in_turn(number, sides)
        faults = list(compare("jump", answers, "plain", "jumping"))
        faults += [f"jump: an answer ends by {answer.finish_reason}"
                   for answer in answers["plain"] if answer.finish_reason != "stop"]
        speed = {name: sum(len(a.ids) for a in all) / sum(a.last - a.sent for a in all)
                 for name, all in answers.items()}
        return {"plain, tokens/s": speed["plain"], "jumping, tokens/s": speed["jumping"],
                "ratio": speed["jumping"] / speed["plain"]}, faults

    try:
        return servers["jumping"], *rounds_of(options, measure), {"ratio": f">= {JUMP_TARGET}"}
    finally:
        for server in servers.values():
            server.stop()


def edit_request(number):
    name, capacity = f"Window{number}", 100 + number
    source = SOURCE.replace("{name}", name).replace("{capacity}", str(capacity))
    asked = (f"Rename the class {name} to Ring{number}. Print the whole file again, with nothing "
             f"else changed.\n\n```python\n{source}```")
    return {"messages": [{"role": "user", "content": asked}], "max_tokens": 700, "temperature": 0}


def prose_request(number):
    begin = 97 * number % (len(SONNETS) - 100)
    return {"prompt": " ".join(SONNETS[begin : begin + 80]), "max_tokens": 200, "temperature": 1,
            "seed": number, "ignore_eos": True}


TEXTS = {"edit": (edit_request, "/v1/chat/completions"),
         "prose": (prose_request, "/v1/completions")}


def decode_speed(answers):
    return sum(a.later for a in answers) / sum(a.last - a.first for a in answers)


def with_drafts(options, part, targets, *flags):
    servers = {"none": start_server(options), "drafts": start_server(options, *flags)}

    def measure(number):
        figures, faults = {}, []
        for kind in options.text or TEXTS:
            request, path = TEXTS[kind]
            body = request(number)
            answers = in_turn(number, {
                name: (lambda server=server: run(server.url, [body], path))
                for name, server in servers.items()})
            faults += compare(f"{part}, {kind}", answers, "none", "drafts")
            speed = {name: decode_speed(all) for name, all in answers.items()}
            figures |= {f"{kind}, tokens": len(answers["none"][0].ids),
                        f"{kind} without, tokens/s": speed["none"],
                        f"{kind} with, tokens/s": speed["drafts"],
                        f"{kind} ratio": speed["drafts"] / speed["none"]}
        return figures, faults

    try:
        figures, faults = rounds_of(options, measure)
        for name, unit in (("draft_tokens", "computed"), ("accepted_tokens", "accepted")):
            print(f"drafts {unit}: "
                  f"{servers['drafts'].metric(f'kvasir_spec_decode_num_{name}_total'):.0f}")
        return servers["drafts"], figures, faults, targets
    finally:
        for server in servers.values():
            server.stop()


def lookup(options):
    options.model = options.lookup_model or options.model
    targets = {"edit ratio": f">= {EDIT_TARGET}", "prose ratio": f">= {PROSE_TARGET}"}
    return with_drafts(options, "lookup", targets, "--max-drafts", str(options.drafts))


def draft(options):
    options.model = options.draft_target or options.model
    targets = {"prose ratio": f">= {PROSE_TARGET}"}
    return with_drafts(options, "draft", targets, "--draft-model", str(options.draft_model))


PARTS = {"itl": itl, "jump": jump, "lookup": lookup, "draft": draft}


def main():
    parser = options_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--tokens", type=int, default=128, help="of each stream of itl")
    parser.add_argument("--tasks", type=int, default=4, help="of a round of jump")
    parser.add_argument("--drafts", type=int, default=8, help="the server's --max-drafts")
    parser.add_argument("--lookup-model", type=pathlib.Path,
                        help="of lookup, if another one: scripts/fetch_qwen_model.sh has one")
    parser.add_argument("--draft-model", type=pathlib.Path, help="of draft")
    parser.add_argument("--draft-target", type=pathlib.Path,
                        help="of draft: the model it drafts for, if another one")
    parser.add_argument("--text", choices=TEXTS, action="append",
                        help="of lookup and draft, one of them (default: all)")
    parser.add_argument("--part", choices=PARTS, action="append", help="one of them (default: all)")
    options = parser.parse_args()
    rows, faults, rounds = [], [], {}
    parts = options.part or [part for part in PARTS if part != "draft" or options.draft_model]
    for part in parts:
        server, rounds[part], wrong, targets = PARTS[part](options)
        rows += medians(part, rounds[part], targets)
        faults += wrong
    report("structured", server, rows, {"rounds": rounds})
    return failed(faults)


if __name__ == "__main__":
    sys.exit(main())
