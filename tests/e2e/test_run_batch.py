"""`kvasir run-batch`: a file of requests in, a file of answers out."""

import json
import subprocess


def line(custom_id, url="/v1/chat/completions", **body):
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body})


def chat(text, **more):
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 8, "temperature": 0, **more}


def test_answers_every_line(binary, server, client, tmp_path):
    lines = [line(f"chat-{i}", **chat(f"Name the number {i}.")) for i in range(20)]
    lines += [
        line("completion", "/v1/completions", prompt="Once upon", max_tokens=4),
        line("embedding", "/v1/embeddings", input=["a", "b"]),
        line("response", "/v1/responses", input="hi", max_output_tokens=4),
        line("bad", **chat("x", top_p=7)),
        line("other model", **chat("x", model="nobody")),
        line("chat-0", **chat("twice")),
        line("long", **chat("word " * 3000)),
        "not JSON",
        "",
    ]
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("\n".join(lines))
    done = subprocess.run(
        [binary, "run-batch", source, "--output", target, "--max-num-seqs", "8"],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert "24 answered, 4 failed" in done.stderr
    answers = [json.loads(text) for text in target.read_text().splitlines()]
    assert len(answers) == 28
    by_id = {a["custom_id"]: a["response"] for a in answers if a["response"]}
    for i in range(20):
        expected = client.chat.completions.create(model=None, **chat(f"Name the number {i}."))
        body = by_id[f"chat-{i}"]["body"]
        assert body["choices"][0]["message"]["content"] == expected.choices[0].message.content
    assert len(by_id["embedding"]["body"]["data"]) == 2
    assert by_id["bad"]["status_code"] == 400 and by_id["bad"]["body"]["error"]["param"] == "top_p"
    assert by_id["other model"]["status_code"] == 404
    errors = [a["error"]["message"] for a in answers if a["error"]]
    assert len(errors) == 2
    assert any("custom_id: is that of an earlier line" in message for message in errors)


def test_says_what_it_cannot_read(binary, tmp_path):
    done = subprocess.run([binary, "run-batch", tmp_path / "none"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "cannot read" in done.stderr
