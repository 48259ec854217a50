"""The official client, unmodified, against the default model."""

import math

import openai
import pytest

CHAT = [{"role": "user", "content": "Name three colors."}]


def complete(client, prompt="The capital of France is", **kwargs):
    return client.completions.create(
        **{"model": None, "prompt": prompt, "max_tokens": 16, "temperature": 0, **kwargs}
    )


def chat(client, **kwargs):
    return client.chat.completions.create(
        **{"model": None, "messages": CHAT, "max_tokens": 24, "temperature": 0, **kwargs}
    )


def joined(stream):
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


def test_lists_the_model(client):
    models = client.models.list().data
    assert len(models) == 1
    assert models[0].max_model_len == 8192
    assert client.models.retrieve(models[0].id).id == models[0].id


def test_answers_a_chat(client):
    answer = chat(client)
    choice = answer.choices[0]
    assert choice.message.role == "assistant"
    assert len(choice.message.content) > 10
    assert choice.finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert 0 < answer.usage.completion_tokens <= 24


def test_knows_the_capital_of_france(client):
    assert "Paris" in complete(client).choices[0].text


def test_takes_the_models_own_name(client):
    name = client.models.list().data[0].id
    assert chat(client, model=name).model == name


def test_streams_what_it_would_answer_at_once(client):
    whole = chat(client).choices[0].message.content
    assert joined(chat(client, stream=True)) == whole
    text = complete(client).choices[0].text
    assert "".join(chunk.choices[0].text for chunk in complete(client, stream=True)) == text


def test_streams_usage_when_asked(client):
    chunks = list(chat(client, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == chat(client).usage.completion_tokens
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_reports_cached_tokens(client):
    prompt = list(range(1000, 1100))
    first = complete(client, prompt, max_tokens=1).usage
    second = complete(client, prompt, max_tokens=1).usage
    assert first.prompt_tokens_details.cached_tokens == 0
    assert second.prompt_tokens_details.cached_tokens == 96


def test_gives_several_choices(client):
    answer = chat(client, n=3, temperature=1, seed=5)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) > 1
    again = chat(client, n=3, temperature=1, seed=5)
    assert [c.message.content for c in again.choices] == [c.message.content for c in answer.choices]


def test_a_seed_repeats_an_answer(client):
    texts = [complete(client, temperature=1, seed=seed).choices[0].text for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_takes_a_batch_of_prompts(client):
    prompts = ["One, two,", "A, B,"]
    answer = complete(client, prompts, n=2)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    for i, prompt in enumerate(prompts):
        alone = complete(client, prompt).choices[0].text
        assert answer.choices[2 * i].text == answer.choices[2 * i + 1].text == alone


def test_stops_at_strings(client):
    whole = complete(client, max_tokens=32).choices[0].text
    stop = whole[5:9]
    cut = whole[: whole.index(stop)]
    choice = complete(client, max_tokens=32, stop=stop).choices[0]
    assert (choice.text, choice.finish_reason, choice.stop_reason) == (cut, "stop", stop)
    assert complete(client, max_tokens=32, stop=["zzz", stop]).choices[0].text == cut
    including = complete(
        client, max_tokens=32, stop=stop, extra_body={"include_stop_str_in_output": True}
    )
    assert including.choices[0].text == cut + stop
    stream = complete(client, max_tokens=32, stop=stop, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == cut


def test_stops_at_token_ids(client):
    whole = complete(client, extra_body={"return_token_ids": True}).choices[0]
    stop = whole.token_ids[3]
    first = whole.token_ids.index(stop)
    choice = complete(
        client, extra_body={"return_token_ids": True, "stop_token_ids": [stop]}
    ).choices[0]
    assert choice.token_ids == whole.token_ids[: first + 1]
    assert (choice.finish_reason, choice.stop_reason) == ("stop", stop)


def test_goes_on_past_the_end_when_told(client):
    answer = chat(client, max_tokens=200, extra_body={"ignore_eos": True})
    assert answer.usage.completion_tokens == 200
    assert answer.choices[0].finish_reason == "length"


def test_min_tokens_holds_the_end_off(client):
    answer = chat(client, max_tokens=120, extra_body={"min_tokens": 120})
    assert answer.usage.completion_tokens == 120


def test_gives_logprobs_of_a_chat(client):
    choice = chat(client, logprobs=True, top_logprobs=3).choices[0]
    content = choice.logprobs.content
    assert "".join(entry.token for entry in content).startswith(choice.message.content)
    for entry in content:
        assert bytes(entry.bytes).decode() == entry.token
        assert len(entry.top_logprobs) == 3
        best = [top.logprob for top in entry.top_logprobs]
        assert best == sorted(best, reverse=True)
        assert entry.logprob == best[0] <= 0  # greedy
        assert sum(math.exp(logprob) for logprob in best) <= 1.0001


def test_gives_logprobs_of_a_completion(client):
    choice = complete(client, logprobs=2).choices[0]
    logprobs = choice.logprobs
    assert "".join(logprobs.tokens) == choice.text
    assert logprobs.text_offset[:2] == [0, len(logprobs.tokens[0])]
    for token, logprob, top in zip(
        logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs, strict=True
    ):
        assert top[token] == logprob


def test_streams_the_same_logprobs(client):
    whole = chat(client, logprobs=True).choices[0].logprobs.content
    streamed = [
        entry
        for chunk in chat(client, logprobs=True, stream=True)
        if chunk.choices and chunk.choices[0].logprobs
        for entry in chunk.choices[0].logprobs.content
    ]
    assert streamed == whole


def test_serves_token_ids(client, http):
    text = "The capital of France is"
    ids = http.post("/tokenize", json={"prompt": text}).json()["tokens"]
    answer = complete(client, ids, extra_body={"return_token_ids": True}).choices[0]
    assert answer.prompt_token_ids == ids
    detokenized = http.post("/detokenize", json={"tokens": answer.token_ids}).json()["prompt"]
    assert answer.text == detokenized == complete(client, text).choices[0].text
    assert http.post("/detokenize", json={"tokens": ids}).json()["prompt"] == text


def test_logit_bias_bans_and_forces(client):
    free = complete(client, max_tokens=1, extra_body={"return_token_ids": True}).choices[0]
    banned = complete(
        client,
        max_tokens=1,
        logit_bias={str(free.token_ids[0]): -100},
        extra_body={"return_token_ids": True},
    ).choices[0]
    assert banned.token_ids != free.token_ids
    forced = complete(
        client, max_tokens=3, logit_bias={"1234": 100}, extra_body={"return_token_ids": True}
    ).choices[0]
    assert forced.token_ids == [1234] * 3


@pytest.mark.parametrize(
    ("arguments", "param"),
    [
        ({"temperature": -1}, "temperature"),
        ({"top_p": 2}, "top_p"),
        ({"n": 0}, "n"),
        ({"max_tokens": 100000}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "long " * 9000}]}, "messages"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"extra_body": {"guided_regex": "a", "guided_choice": ["b"]}}, "guided_choice"),
        ({"extra_body": {"min_tokens": 99}}, "min_tokens"),
    ],
)
def test_bad_requests_raise_and_name_the_field(client, arguments, param):
    with pytest.raises(openai.BadRequestError) as raised:
        chat(client, **arguments)
    assert raised.value.param == param
    assert raised.value.type == "invalid_request_error"


def test_image_parts_are_refused_by_name(client):
    content = [{"type": "image_url", "image_url": {"url": "data:,"}}]
    with pytest.raises(openai.BadRequestError) as raised:
        chat(client, messages=[{"role": "user", "content": content}])
    assert raised.value.param == "messages[0].content[0].type"


def test_an_unknown_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError) as raised:
        chat(client, model="gpt-4")
    assert raised.value.code == "model_not_found"


def test_a_wrong_key_is_refused(start_server):
    server = start_server("--api-key", "first", "--api-key", "second")
    with pytest.raises(openai.AuthenticationError):
        chat(server.openai("wrong"))
    assert chat(server.openai("second"), max_tokens=1).choices
