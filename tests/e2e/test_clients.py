"""Official clients, unmodified, over chat, streaming, tools and structured output."""

import base64
import json
import math
import pathlib
import struct
import subprocess

import anthropic
import jsonschema
import ollama
import openai
import pytest
from conftest import Server
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from test_tools import TEMPLATE

NODE = pathlib.Path(__file__).parent / "node"
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}},
    "required": ["city"],
    "additionalProperties": False,
}
ASK = [{"role": "user", "content": "How is the weather in Oslo?"}]


@pytest.fixture(scope="module")
def server(binary, tmp_path_factory):
    """In place of the shared one: the default model with a template that knows tools."""
    path = tmp_path_factory.mktemp("template") / "tools.jinja"
    path.write_text(TEMPLATE)
    running = Server("--chat-template", str(path), "--api-key", "sesame")
    yield running
    assert running.stop() == 0, running.logged()


@pytest.fixture
def client(server):
    with server.openai("sesame") as client:
        yield client


# ---- OpenAI: /v1/responses ----


def test_responses(client):
    whole = client.responses.create(model=None, input="Say hi.", temperature=0, max_output_tokens=8)
    assert whole.status == "incomplete" and whole.output_text
    assert whole.usage.output_tokens == 8
    again = client.responses.create(
        model=None,
        instructions="Be brief.",
        input=[{"role": "user", "content": [{"type": "input_text", "text": "Say hi."}]}],
        temperature=0,
        max_output_tokens=8,
    )
    assert again.usage.input_tokens > whole.usage.input_tokens


def test_responses_stream(client):
    text_format = {"format": {"type": "json_schema", "name": "city", "schema": CITY}}
    ask = {"model": None, "input": ASK, "temperature": 0, "text": text_format}
    with client.responses.stream(**ask) as stream:
        text = "".join(e.delta for e in stream if e.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert text == final.output_text == client.responses.create(**ask).output_text
    cut = client.responses.create(model=None, input=ASK, max_output_tokens=2, stream=True)
    assert [event.type for event in cut][-1] == "response.incomplete"


def test_responses_call_functions_and_take_their_output(client):
    tool = {"type": "function", "name": "get_weather", "parameters": CITY, "strict": True}
    ask = {"model": None, "tools": [tool], "tool_choice": "required", "temperature": 0}
    (call,) = client.responses.create(input=ASK, parallel_tool_calls=False, **ask).output
    assert call.type == "function_call" and call.name == "get_weather"
    jsonschema.validate(json.loads(call.arguments), CITY)
    answer = client.responses.create(
        model=None,
        tools=[tool],
        input=[
            *ASK,
            call.model_dump(exclude={"status"}),
            {"type": "function_call_output", "call_id": call.call_id, "output": "Snow"},
        ],
        max_output_tokens=8,
    )
    assert answer.output


def test_responses_follow_a_schema(client):
    answer = client.responses.create(
        model=None,
        input=ASK,
        text={"format": {"type": "json_schema", "name": "city", "schema": CITY, "strict": True}},
    )
    jsonschema.validate(json.loads(answer.output_text), CITY)


def test_responses_refuse_what_is_not_stored(client):
    with pytest.raises(openai.BadRequestError, match="previous_response_id"):
        client.responses.create(model=None, input="x", previous_response_id="resp_1")


# ---- OpenAI: embeddings and the older completions ----


def test_embeddings(client):
    texts = ["The cat sat on the mat.", "A cat is sitting on a mat.", "Interest rates rose again."]
    ask = {"model": "default", "input": texts}
    ask["model"] = client.models.list().data[0].id
    vectors = [item.embedding for item in client.embeddings.create(**ask).data]
    for vector in vectors:
        assert math.isclose(sum(v * v for v in vector), 1, rel_tol=1e-4)
    dot = [sum(a * b for a, b in zip(vectors[0], v, strict=True)) for v in vectors]
    assert dot[1] > dot[2]
    # The client asks for base64 unless told otherwise, and decodes it.
    floats = client.embeddings.create(encoding_format="float", **ask).data[0].embedding
    raw = client.embeddings.with_raw_response.create(encoding_format="base64", **ask)
    packed = base64.b64decode(json.loads(raw.text)["data"][0]["embedding"])
    unpacked = struct.unpack(f"<{len(packed) // 4}f", packed)
    assert all(math.isclose(a, b, abs_tol=1e-6) for a, b in zip(floats, unpacked, strict=True))


def test_embeddings_do_not_depend_on_the_cache_or_the_batch(client):
    model = client.models.list().data[0].id
    text = "One request, one answer. " * 20
    alone = client.embeddings.create(model=model, input=text).data[0].embedding
    client.completions.create(model=None, prompt=text, max_tokens=1)
    among = client.embeddings.create(model=model, input=["x", text, "y " * 50]).data[1].embedding
    assert alone == among


def test_echo_scores_the_prompt(client):
    prompt = "The capital of France is"
    scored = client.completions.create(
        model=None, prompt=prompt, echo=True, logprobs=2, max_tokens=0
    ).choices[0]
    assert scored.text == prompt
    logprobs = scored.logprobs.token_logprobs
    assert logprobs[0] is None and all(p <= 0 for p in logprobs[1:])
    # The same log-probability that sampling gives the token in its place.
    one = client.completions.create(
        model=None, prompt=prompt, echo=True, logprobs=2, max_tokens=1, temperature=0
    ).choices[0]
    longer = client.completions.create(
        model=None, prompt=one.text, echo=True, logprobs=2, max_tokens=0
    ).choices[0]
    assert longer.logprobs.token_logprobs == one.logprobs.token_logprobs


def test_best_of_and_beams(client):
    ask = {"model": None, "prompt": "Once upon a time", "max_tokens": 8, "logprobs": 0}
    best = client.completions.create(best_of=4, seed=3, **ask).choices
    all_four = client.completions.create(n=4, seed=3, **ask).choices
    mean = [sum(c.logprobs.token_logprobs) / len(c.logprobs.token_logprobs) for c in all_four]
    assert [c.text for c in best] == [all_four[mean.index(max(mean))].text]
    beams = client.completions.create(n=3, extra_body={"use_beam_search": True}, **ask).choices
    totals = [sum(c.logprobs.token_logprobs) for c in beams]
    assert len({c.text for c in beams}) == 3
    assert totals == sorted(totals, reverse=True)
    one = client.completions.create(extra_body={"use_beam_search": True}, **ask).choices[0]
    assert one.text == client.completions.create(temperature=0, **ask).choices[0].text


# ---- Anthropic ----


GREEDY = {"extra_body": {"temperature": 0}}


@pytest.fixture
def claude(server):
    with anthropic.Anthropic(base_url=server.url, api_key="sesame", max_retries=0) as client:
        yield client


@pytest.fixture
def model(client):
    return client.models.list().data[0].id


def test_messages(claude, model):
    ask = {"model": model, "max_tokens": 8, "messages": ASK, "system": "Be kind.", **GREEDY}
    whole = claude.messages.create(**ask)
    assert whole.stop_reason == "max_tokens" and whole.usage.output_tokens == 8
    with claude.messages.stream(**ask) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == final.content[0].text == whole.content[0].text
    counted = claude.messages.count_tokens(model=model, messages=ASK, system="Be kind.")
    usage = whole.usage
    assert counted.input_tokens == usage.input_tokens + usage.cache_read_input_tokens


def test_messages_use_tools(claude, model):
    ask = {
        "model": model,
        "max_tokens": 200,
        "messages": ASK,
        "tools": [{"name": "get_weather", "description": "x", "input_schema": CITY}],
        "tool_choice": {
            "type": "tool",
            "name": "get_weather",
            "disable_parallel_tool_use": True,
        },
        **GREEDY,
    }
    (use,) = claude.messages.create(**ask).content
    assert use.type == "tool_use" and use.name == "get_weather"
    jsonschema.validate(use.input, CITY)
    with claude.messages.stream(**ask) as stream:
        final = stream.get_final_message()
    assert final.stop_reason == "tool_use" and final.content[0].input == use.input
    result = {"type": "tool_result", "tool_use_id": use.id, "content": "Snow"}
    answer = claude.messages.create(
        model=model,
        max_tokens=4,
        tools=ask["tools"],
        messages=[
            *ASK,
            {"role": "assistant", "content": [use.model_dump(include={"type", "id", "name", "input"})]},
            {"role": "user", "content": [result]},
        ],
    )
    assert answer.usage.output_tokens > 0


def test_messages_follow_a_schema(claude, model):
    answer = claude.messages.create(
        model=model,
        max_tokens=200,
        messages=ASK,
        output_config={"format": {"type": "json_schema", "schema": CITY}},
    )
    jsonschema.validate(json.loads(answer.content[0].text), CITY)


def test_messages_errors(server, claude, model):
    with pytest.raises(anthropic.BadRequestError, match=r"messages\[0\].content\[0\].type"):
        image = {"type": "image", "source": {"type": "url", "url": "http://x/y.png"}}
        claude.messages.create(
            model=model, max_tokens=1, messages=[{"role": "user", "content": [image]}]
        )
    with pytest.raises(anthropic.NotFoundError):
        claude.messages.create(model="other", max_tokens=1, messages=ASK)
    with anthropic.Anthropic(base_url=server.url, api_key="wrong", max_retries=0) as stranger:
        with pytest.raises(anthropic.AuthenticationError):
            stranger.messages.create(model=model, max_tokens=1, messages=ASK)


# ---- LangChain ----


def test_langchain(server, model):
    chat = ChatOpenAI(
        model=model, base_url=server.url + "/v1", api_key="sesame", temperature=0, max_tokens=100
    )
    question = [HumanMessage("How is the weather in Oslo?")]
    whole = chat.invoke(question)
    assert "".join(chunk.content for chunk in chat.stream(question)) == whole.content
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": CITY}}
    calls = chat.bind_tools([tool], tool_choice="required").invoke(question).tool_calls
    assert calls[0]["name"] == "get_weather"
    jsonschema.validate(calls[0]["args"], CITY)
    schema = {"title": "city", **CITY}
    jsonschema.validate(chat.with_structured_output(schema, method="json_schema").invoke(question), CITY)
    embeddings = OpenAIEmbeddings(
        model=model, base_url=server.url + "/v1", api_key="sesame", check_embedding_ctx_length=False
    )
    assert len(embeddings.embed_query("hi")) > 100


# ---- Ollama ----


def test_ollama(server):
    client = ollama.Client(server.url, headers={"Authorization": "Bearer sesame"})
    name = client.list().models[0].model
    assert name.endswith(":latest")
    ask = {"model": name, "messages": ASK, "options": {"temperature": 0, "num_predict": 8}}
    whole = client.chat(**ask)
    assert whole.done_reason == "length" and whole.eval_count == 8
    assert "".join(c.message.content for c in client.chat(stream=True, **ask)) == whole.message.content
    tools = [{"type": "function", "function": {"name": "get_weather", "parameters": CITY}}]
    assert client.chat(model=name, messages=ASK, tools=tools, options=ask["options"]).done
    city = client.chat(model=name, messages=ASK, format=CITY, options={"num_predict": 100})
    jsonschema.validate(json.loads(city.message.content), CITY)
    options = {"temperature": 0, "num_predict": 4}
    assert client.generate(model=name, prompt="Once upon", raw=True, options=options).response
    vectors = client.embed(model=name, input=["a", "b"]).embeddings
    assert len(vectors) == 2
    assert client.show(name).capabilities


# ---- Node ----


def test_node(server):
    script = ["node", NODE / "client.mjs", server.url + "/v1", "sesame", json.dumps(CITY)]
    done = subprocess.run(script, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip().endswith("passed")
