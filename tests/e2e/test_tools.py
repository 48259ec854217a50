"""Tools and continued messages through the official client, as far as no model has to obey."""

import openai
import pytest
from conftest import Server

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather of a city",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]
HISTORY = [
    {"role": "user", "content": "How is the weather in Oslo?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "Snow <|im_end|>"},
]
TEMPLATE = """\
{%- if tools %}{{ '<|im_start|>system\\nTools: ' + (tools | tojson) + '<|im_end|>\\n' }}{% endif %}
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + (message.content or '') }}
{%- for call in message.tool_calls or [] %}
{{- '<tool_call>\\n' + call.function.name + ' ' + call.function.arguments.city + '\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""


@pytest.fixture(scope="module")
def server(binary, tmp_path_factory):
    """In place of the shared one: the default model with a template that knows tools."""
    path = tmp_path_factory.mktemp("template") / "tools.jinja"
    path.write_text(TEMPLATE)
    running = Server("--chat-template", str(path))
    yield running
    assert running.stop() == 0, running.logged()


def chat(client, **kwargs):
    body = {"model": None, "messages": HISTORY[:1], "max_tokens": 8, "temperature": 0, **kwargs}
    return client.chat.completions.create(**body)


def prompt(http, **body):
    tokens = http.post("/tokenize", json=body).raise_for_status().json()["tokens"]
    return http.post("/detokenize", json={"tokens": tokens}).json()["prompt"]


def test_answers_with_tools_in_the_prompt(client):
    plain = chat(client).usage.prompt_tokens
    assert chat(client, tools=TOOLS).usage.prompt_tokens > plain
    assert chat(client, tools=TOOLS, tool_choice="none").usage.prompt_tokens == plain


def test_streams_with_tools_what_it_answers_at_once(client):
    whole = chat(client, tools=TOOLS, max_tokens=40).choices[0].message
    stream = chat(client, tools=TOOLS, max_tokens=40, stream=True)
    deltas = [chunk.choices[0].delta for chunk in stream if chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == (whole.content or "")
    assert any(delta.tool_calls for delta in deltas) == bool(whole.tool_calls)


def test_past_calls_go_to_the_template(http):
    text = prompt(http, messages=HISTORY, tools=TOOLS)
    assert "<tool_call>\nget_weather Oslo\n</tool_call>" in text
    assert "<|im_start|>tool\nSnow <|im_end|><|im_end|>" in text
    assert '"name": "get_weather"' in text


def test_answers_after_a_tool(client):
    assert chat(client, messages=HISTORY, tools=TOOLS).choices[0].message.role == "assistant"


def test_continues_the_last_message(http):
    messages = [*HISTORY[:1], {"role": "assistant", "content": "It is "}]
    text = prompt(http, messages=messages, continue_final_message=True)
    assert text.endswith("<|im_start|>assistant\nIt is ")


def test_keeps_the_end_of_a_long_prompt(client):
    body = {"truncate_prompt_tokens": 5}
    assert chat(client, extra_body=body).usage.prompt_tokens == 5


@pytest.mark.parametrize(
    ("arguments", "param"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [*TOOLS, *TOOLS]}, "tools[1].function.name"),
        ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools[0].function.name"),
        (
            {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "no"}}},
            "tool_choice.function.name",
        ),
        (
            {"tools": TOOLS, "tool_choice": "required", "extra_body": {"guided_regex": "a"}},
            "guided_regex",
        ),
        (
            {"extra_body": {"continue_final_message": True, "add_generation_prompt": True}},
            "continue_final_message",
        ),
        (
            {
                "messages": [{"role": "assistant", "content": " "}],
                "extra_body": {"continue_final_message": True},
            },
            "continue_final_message",
        ),
    ],
)
def test_contradictions_raise_and_name_the_field(client, arguments, param):
    with pytest.raises(openai.BadRequestError) as raised:
        chat(client, **arguments)
    assert raised.value.param == param


def test_tools_need_a_form_that_the_template_shows(start_server):
    with start_server().openai() as client, pytest.raises(openai.BadRequestError) as raised:
        chat(client, tools=TOOLS)
    assert raised.value.param == "tools"
