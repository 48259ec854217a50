"""Structured output and required tool calls with the official client, against the default model."""

import json
import re

import jsonschema
import openai
import pytest

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["red", "green"]}, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
FORMAT = {
    "type": "json_schema",
    "json_schema": {"name": "person", "strict": True, "schema": PERSON},
}
TOOL = {"type": "function", "function": {"name": "save", "parameters": PERSON}}


def chat(client, **kwargs):
    messages = [{"role": "user", "content": "Describe a person."}]
    return client.chat.completions.create(
        **{"model": None, "messages": messages, "max_tokens": 200, "temperature": 0, **kwargs}
    )


def check(text):
    jsonschema.validate(json.loads(text), PERSON)


def test_answers_by_a_schema(client):
    choice = chat(client, response_format=FORMAT).choices[0]
    check(choice.message.content)
    assert choice.finish_reason == "stop"


def test_every_choice_obeys_at_any_temperature(client):
    answer = chat(client, response_format=FORMAT, n=4, temperature=1.5, seed=7)
    for choice in answer.choices:
        check(choice.message.content)
    assert len({choice.message.content for choice in answer.choices}) > 1


def test_streams_and_tells_logprobs_of_the_same_answer(client):
    whole = chat(client, response_format=FORMAT)
    stream = chat(client, response_format=FORMAT, stream=True)
    text = "".join(c.choices[0].delta.content or "" for c in stream if c.choices)
    told = chat(client, response_format=FORMAT, logprobs=True)
    assert text == whole.choices[0].message.content == told.choices[0].message.content
    tokens = told.choices[0].logprobs.content
    assert "".join(t.token for t in tokens).startswith(text)
    assert all(t.logprob <= 0 for t in tokens)


def test_max_tokens_ends_a_constrained_answer(client):
    answer = chat(client, response_format=FORMAT, max_tokens=5)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 5


@pytest.mark.parametrize(
    "body, pattern",
    [
        ({"guided_choice": ["yes", "no way"]}, r"yes|no way"),
        ({"regex": r"\d{3}-\d{4}"}, r"\d{3}-\d{4}"),
        ({"structured_outputs": {"regex": "[ab]{3}"}}, r"[ab]{3}"),
        ({"ebnf": 'root ::= "x" digit+ "y"\ndigit ::= [0-9]'}, r"x[0-9]+y?"),
        ({"guided_grammar": 'start: "p" ("q" | "r") "s"'}, r"p[qr]s"),
    ],
)
def test_every_kind_of_constraint_holds(client, body, pattern):
    answer = client.completions.create(
        model=None, prompt="The answer is", max_tokens=32, temperature=0, extra_body=body
    )
    assert re.fullmatch(pattern, answer.choices[0].text)


@pytest.mark.parametrize(
    "body, field",
    [
        ({"guided_json": {"type": "strin"}}, "guided_json"),
        ({"guided_json": {"type": "string", "minLength": 3, "maxLength": 1}}, "guided_json"),
        ({"regex": "a("}, "regex"),
        ({"ebnf": 'root ::= "a" | b'}, "ebnf"),
        ({"guided_grammar": "start: missing"}, "guided_grammar"),
    ],
)
def test_a_bad_constraint_is_refused_by_its_field(client, body, field):
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model=None, prompt="x", max_tokens=4, extra_body=body)
    assert refused.value.param == field


@pytest.mark.parametrize("format", ["hermes", "llama3_json"])
def test_a_required_call_validates(start_server, format):
    client = start_server("--tool-call-parser", format).openai()
    choice = chat(client, tools=[TOOL], tool_choice="required", parallel_tool_calls=False).choices[0]
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls
    assert call.function.name == "save"
    check(call.function.arguments)
    stream = chat(
        client, tools=[TOOL], tool_choice="required", parallel_tool_calls=False, stream=True
    )
    deltas = [c.choices[0].delta.tool_calls[0] for c in stream if c.choices[0].delta.tool_calls]
    assert "".join(d.function.arguments or "" for d in deltas) == call.function.arguments


def test_jumps_and_drafts_change_no_answer(start_server):
    ask = dict(response_format=FORMAT, temperature=1, seed=3)
    plain = chat(start_server("--no-jump-forward").openai(), **ask)
    jumps = chat(start_server("--max-drafts", "6").openai(), **ask)
    assert plain.choices[0].message.content == jumps.choices[0].message.content
    assert plain.usage.completion_tokens == jumps.usage.completion_tokens
