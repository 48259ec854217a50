"""The suite of JSON schemas: which there are, how the server is asked, and how it is judged."""

import concurrent.futures
import dataclasses
import decimal
import json
import pathlib
import zlib

import jsonschema

FOLDER = pathlib.Path(__file__).resolve().parent
FIELD = "response_format.json_schema.schema"
MAX_TOKENS = 1024
MOST_REFUSED, MOST_BY_LENGTH = 0.05, 0.05  # shares of all
ASSERTED_FORMATS = {
    "date", "date-time", "time", "duration", "email", "idn-email", "hostname", "idn-hostname",
    "ipv4", "ipv6", "uri", "uri-reference", "iri", "iri-reference", "uri-template", "uuid",
    "json-pointer", "relative-json-pointer",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    schema: dict
    exact: dict  # the schema with decimals for numbers
    place: str = ""  # of an invalid schema's error
    says: str = ""


@dataclasses.dataclass(frozen=True)
class Sampling:
    name: str
    temperature: float

    def options(self, case):
        return {"temperature": self.temperature, "seed": zlib.crc32(case.name.encode())}


SAMPLINGS = [Sampling("greedy", 0), Sampling("sampled", 1)]


@dataclasses.dataclass
class Outcome:
    case: Case
    sampling: Sampling
    status: int
    text: str  # of the answer or of the error
    finish_reason: str = ""
    tokens: int = 0
    fault: str = ""  # why an answer that stopped is none

    @property
    def label(self):
        return f"{self.case.name} ({self.sampling.name})"


def load(path):
    text = path.read_text()
    return json.loads(text), json.loads(text, parse_float=decimal.Decimal)


def cases():
    """Every valid schema, each theme a file."""
    found = []
    for path in sorted((FOLDER / "schemas").glob("*.json")):
        schemas, exact = load(path)
        found += [Case(f"{path.stem}: {name}", schemas[name], exact[name]) for name in schemas]
    return found


def invalid_cases():
    plain, exact = load(FOLDER / "invalid.json")
    return [Case(case["name"], case["schema"], other["schema"], case["place"], case["says"])
            for case, other in zip(plain, exact)]


def body(case, sampling):
    subject = case.name.partition(": ")[2] or case.name
    message = (f"Give one short example of this as JSON: {subject}.\n"
               f"Its JSON schema: {json.dumps(case.schema, ensure_ascii=False)}")
    return {
        "messages": [{"role": "user", "content": message}],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "example", "strict": True, "schema": case.schema},
        },
        "max_tokens": MAX_TOKENS,
        **sampling.options(case),
    }


def fault_of(case, text):
    """Why the text is not what the schema asks for, or nothing. Numbers are exact decimals: for
    doubles 19.99 is no multiple of 0.01."""
    try:
        with decimal.localcontext(prec=MAX_TOKENS * 20):
            value = json.loads(text, parse_float=decimal.Decimal)
            validator_of(case.exact).validate(value)
    except ValueError as error:
        return f"no JSON: {error}"
    except jsonschema.ValidationError as error:
        return f"{error.json_path}: {error.message}"
    return ""


def validator_of(schema):
    kind = jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    missing = ASSERTED_FORMATS - checker.checkers.keys()
    assert not missing, f"scripts/requirements.txt: no checker for {missing}"
    return kind(schema, format_checker=checker)


def ask(http, case, sampling):
    answer = http.post("/v1/chat/completions", json=body(case, sampling), timeout=3600)
    if answer.status_code != 200:
        return Outcome(case, sampling, answer.status_code, answer.text)
    content = answer.json()
    choice, usage = content["choices"][0], content["usage"]
    text = choice["message"]["content"]
    stopped = choice["finish_reason"] == "stop"
    return Outcome(case, sampling, 200, text, choice["finish_reason"], usage["completion_tokens"],
                   fault_of(case, text) if stopped else "")


def ask_all(http, cases, samplings, streams, at_each=lambda outcome: None):
    """All cases with all samplings, some at a time."""
    with concurrent.futures.ThreadPoolExecutor(streams) as pool:
        futures = [pool.submit(ask, http, case, sampling)
                   for sampling in samplings for case in cases]
        for future in concurrent.futures.as_completed(futures):
            at_each(future.result())
        return [future.result() for future in futures]


def refusal_fault(outcome):
    """Why the answer to an invalid schema is no refusal that names the place, or nothing."""
    case = outcome.case
    if outcome.status != 400:
        return f"{case.name}: answered with {outcome.status}: {outcome.text}"
    error = json.loads(outcome.text)["error"]
    if error["param"] != FIELD or f" {case.place}: " not in error["message"]:
        return f"{case.name}: the place is not {FIELD} and {case.place}: {error}"
    if case.says not in error["message"]:
        return f"{case.name}: the message does not say {case.says!r}: {error['message']}"
    return ""
