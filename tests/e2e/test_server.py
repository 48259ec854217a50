"""The server as a process: connections, limits, resources, signals, faults at start."""

import concurrent.futures
import json
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest
from conftest import ROOT

MAKE_CHECKPOINT = ROOT / "scripts/make_checkpoint.py"
LONG = {"prompt": "Once upon a time", "max_tokens": 4000, "ignore_eos": True, "stream": True}


def held_blocks(server):
    return server.metric("kvasir_kv_blocks", state="held")


def wait_until_idle(server):
    server.wait_for_metric("kvasir_num_requests_running", 0)
    server.wait_for_metric("kvasir_num_requests_waiting", 0)
    server.wait_for_metric("kvasir_kv_blocks", 0, state="held")


def test_frees_the_blocks_of_a_client_that_leaves(server):
    with server.http() as http, http.stream("POST", "/v1/completions", json=LONG) as response:
        lines = response.iter_lines()
        next(lines)
        assert held_blocks(server) > 0
    wait_until_idle(server)


def test_frees_the_blocks_of_a_waiting_client_that_leaves(server):
    body = json.dumps({**LONG, "stream": False}).encode()
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            b"POST /v1/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        server.wait_for_metric("kvasir_num_requests_running", 1)
    wait_until_idle(server)


def test_frees_the_blocks_of_choices_that_a_stop_string_ended(server, client):
    client.completions.create(
        model="", prompt="1 2 3 4 5 6", max_tokens=3000, n=4, stop=[" ", "e", "1"]
    )
    wait_until_idle(server)


def test_serves_many_streams_that_come_and_go(server):
    def one(i):
        with server.http() as http:
            body = {**LONG, "prompt": f"{i} times {i} is", "max_tokens": 40, "seed": i}
            with http.stream("POST", "/v1/completions", json=body) as response:
                for count, _ in enumerate(response.iter_lines()):
                    if i % 3 == 0 and count > i:
                        return

    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        list(pool.map(one, range(48)))
    wait_until_idle(server)


def test_health_version_and_metrics(http):
    assert http.get("/health").status_code == 200
    assert http.get("/ready").status_code == 200
    assert set(http.get("/version").json()) == {"version"}
    metrics = http.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain")
    for name in ("time_to_first_token_seconds", "prompt_tokens_total", "num_preemptions_total"):
        assert f"# TYPE kvasir_{name}" in metrics.text


@pytest.mark.parametrize(
    ("method", "path", "kwargs", "status"),
    [
        ("GET", "/nothing", {}, 404),
        ("GET", "/v1/completions", {}, 405),
        ("POST", "/v1/completions", {"content": b"{"}, 400),
        ("POST", "/v1/completions", {"content": b"[" * 100000}, 400),
        ("POST", "/v1/completions", {"content": b'{"prompt":"\xff"}'}, 400),
        ("POST", "/v1/completions", {"content": b"{}"}, 400),
        ("POST", "/v1/completions", {"content": b'{"prompt":NaN}'}, 400),
        ("POST", "/v1/completions", {"content": b'{"prompt":"x","seed":1e400}'}, 400),
        ("POST", "/v1/completions", {"content": b'{"prompt":[1e9]}'}, 400),
        ("POST", "/v1/completions", {"content": b"x", "headers": {"content-type": "text/plain"}}, 415),
        ("POST", "/v1/completions", {"content": b" " * (20 << 20)}, 413),
    ],
)
def test_bad_requests_get_error_objects(http, method, path, kwargs, status):
    response = http.request(method, path, **kwargs)
    assert response.status_code == status
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


def test_finishes_streams_on_sigterm(start_server):
    server = start_server()
    with server.http() as http, http.stream(
        "POST", "/v1/completions", json={**LONG, "max_tokens": 60}
    ) as response:
        lines = response.iter_lines()
        next(lines)
        server.process.send_signal(signal.SIGTERM)
        rest = list(lines)
    assert rest[-2:] == ["data: [DONE]", ""]
    assert server.process.wait(30) == 0


def test_ends_long_streams_when_the_drain_takes_too_long(start_server):
    server = start_server("--drain-timeout", "0.2")
    with server.http() as http, http.stream("POST", "/v1/completions", json=LONG) as response:
        lines = response.iter_lines()
        next(lines)
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(httpx.RemoteProtocolError):
            list(lines)
    assert server.process.wait(30) == 0


def test_a_second_signal_ends_it_at_once(start_server):
    server = start_server()
    with server.http() as http, http.stream("POST", "/v1/completions", json=LONG) as response:
        lines = response.iter_lines()
        next(lines)
        server.process.send_signal(signal.SIGINT)
        time.sleep(0.1)
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(5) == 128 + signal.SIGINT


def test_a_full_queue_answers_429(start_server):
    server = start_server("--max-num-seqs", "1", "--max-queue", "2")
    statuses, lock = [], threading.Lock()

    def one(_):
        with server.http() as http:
            response = http.post(
                "/v1/completions", json={**LONG, "stream": False, "max_tokens": 200}
            )
        with lock:
            statuses.append(response.status_code)
            if response.status_code == 429:
                assert int(response.headers["retry-after"]) >= 1

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(8)))
    assert statuses.count(200) >= 1
    assert statuses.count(429) >= 1
    assert statuses.count(200) + statuses.count(429) == 8


def test_a_request_timeout_answers_408(start_server):
    server = start_server("--request-timeout", "0.5")
    with server.http() as http:
        response = http.post("/v1/completions", json={**LONG, "stream": False})
    assert response.status_code == 408
    wait_until_idle(server)


def test_ids_only_without_a_tokenizer(start_server):
    server = start_server("--skip-tokenizer-init")
    with server.http() as http:
        assert http.post("/v1/completions", json={"prompt": "text"}).status_code == 400
        answer = http.post("/v1/completions", json={"prompt": [1, 2, 3], "max_tokens": 4}).json()
    assert len(answer["choices"][0]["token_ids"]) == 4
    assert answer["choices"][0]["text"] == ""


def test_configuration_comes_from_flags_environment_and_file(start_server, tmp_path):
    config = tmp_path / "kvasir.toml"
    config.write_text('served-model-name = "from-file"\nmax-model-len = 512\nthreads = 1\n')
    server = start_server("--config", str(config), env={"KVASIR_SERVED_MODEL_NAME": "from-env"})
    with server.http() as http:
        model = http.get("/v1/models").json()["data"][0]
    assert (model["id"], model["max_model_len"]) == ("from-env", 512)


def one_line(result):
    assert result.returncode == 1
    lines = [line for line in result.stderr.splitlines() if line.startswith("kvasir:")]
    assert len(lines) == 1
    return lines[0]


def test_faults_at_start_are_one_clear_line(kvasir, server, tmp_path):
    port = server.url.rpartition(":")[2]
    assert f"127.0.0.1:{port}: Address already in use" in one_line(kvasir("serve", "--port", port))
    assert "/nonexistent.gguf" in one_line(kvasir("serve", "/nonexistent.gguf"))
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF\x03\x00\x00\x00" + b"\xff" * 100)
    assert str(broken) in one_line(kvasir("serve", str(broken)))
    config = tmp_path / "kvasir.toml"
    config.write_text("prot = 9000\n")
    assert "unknown key 'prot'" in one_line(kvasir("serve", "--config", str(config)))
    assert "kv-cache-memory" in one_line(kvasir("serve", "--kv-cache-memory", "900TiB", "--port", "0"))


def test_help_and_version(kvasir):
    assert kvasir("version").stdout.startswith("kvasir ")
    help_text = kvasir("serve", "--help").stdout
    for flag in ("--max-model-len", "--kv-cache-memory", "--api-key", "--config"):
        assert flag in help_text
    assert kvasir("serve", "--nonsense").returncode == 1
    assert kvasir().returncode == 1


def test_a_draft_model_changes_no_answer(start_server, server, client):
    drafting = start_server("--draft-model", "default", "--max-drafts", "3")
    asks = [
        {"prompt": "One two three four five six", "max_tokens": 40, "temperature": 0},
        {"prompt": "Once upon a time", "max_tokens": 40, "temperature": 1, "seed": 5, "n": 2},
    ]
    with drafting.openai() as other:
        for ask in asks:
            expected = client.completions.create(model=None, **ask).choices
            got = other.completions.create(model=None, **ask).choices
            assert [c.text for c in got] == [c.text for c in expected]


def test_a_draft_model_of_another_vocabulary_is_refused(kvasir, tmp_path):
    folder = tmp_path / "other"
    subprocess.run([sys.executable, MAKE_CHECKPOINT, folder], check=True)
    refused = kvasir("serve", "--draft-model", str(folder), "--skip-tokenizer-init", "--port", "0")
    assert "vocabulary" in one_line(refused)
