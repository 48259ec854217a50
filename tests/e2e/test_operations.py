"""What operators use: the access log, API keys with limits, TLS, bad clients."""

import hashlib
import json
import random
import signal
import socket
import ssl
import subprocess
import time

import httpx
import openai
import pytest

LONG = {"prompt": "Once upon a time", "max_tokens": 4000, "ignore_eos": True, "stream": True}


def wait_for(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return result


def read_log(path, count):
    """The first lines of an access log, once they are there."""
    return wait_for(
        lambda: path.exists()
        and len(lines := path.read_text().splitlines()) >= count
        and [json.loads(line) for line in lines]
    )


def test_ids_lead_from_the_client_to_the_access_log(start_server, tmp_path):
    log = tmp_path / "access.log"
    server = start_server("--access-log", str(log), "--api-key", "secret")
    with server.openai("secret") as client:
        raw = client.completions.with_raw_response.create(
            model="",
            prompt="The capital of France is",
            max_tokens=5,
            extra_headers={"X-Request-Id": "my-request"},
        )
    assert raw.headers["x-request-id"] == "my-request"
    usage = raw.parse().usage
    with server.http() as http, http.stream(
        "POST", "/v1/completions", json=LONG, headers={"Authorization": "Bearer secret"}
    ) as response:
        next(response.iter_lines())
    answered, left = read_log(log, 2)
    assert answered["request_id"] == "my-request"
    assert answered["trace_id"] in raw.headers["traceparent"]
    assert answered["prompt_tokens"] == usage.prompt_tokens
    assert answered["completion_tokens"] == usage.completion_tokens == 5
    assert 0 < answered["ttft_ms"] <= answered["duration_ms"]
    assert not answered["aborted"]
    assert left["aborted"] and left["completion_tokens"] >= 1
    assert "secret" not in log.read_text()


def test_sighup_opens_the_access_log_anew(start_server, tmp_path):
    log = tmp_path / "access.log"
    server = start_server("--access-log", str(log))
    with server.http() as http:
        http.get("/health")
        read_log(log, 1)
        log.rename(tmp_path / "access.log.1")
        server.process.send_signal(signal.SIGHUP)
        wait_for(log.exists)
        http.get("/version")
    assert read_log(log, 1)[0]["path"] == "/version"
    assert len(read_log(tmp_path / "access.log.1", 1)) == 1


def test_sighup_ends_a_server_that_has_nothing_to_open_anew(start_server):
    server = start_server()
    server.process.send_signal(signal.SIGHUP)
    assert server.process.wait(10) == -signal.SIGHUP


KEYS = """
[[keys]]
name = "limited"
key = "sk-limited"
requests_per_minute = 3
tokens_per_minute = 200

[[keys]]
name = "free"
key_sha256 = "{}"
"""
PROMPT = "One two three four five six seven eight nine ten. " * 4


def test_api_keys_have_limits(start_server, tmp_path):
    keys = tmp_path / "keys.toml"
    keys.write_text(KEYS.format(hashlib.sha256(b"sk-free").hexdigest()))
    server = start_server("--api-keys-file", str(keys))

    def ask(client, **kwargs):
        return client.completions.with_raw_response.create(
            **{"model": "", "prompt": "Hi", "max_tokens": 3, **kwargs}
        )

    with server.openai("sk-limited") as client:
        headers = ask(client).headers
        assert headers["x-ratelimit-limit-requests"] == "3"
        assert headers["x-ratelimit-remaining-requests"] == "2"
        assert headers["x-ratelimit-limit-tokens"] == "200"
        with pytest.raises(openai.BadRequestError, match="may use 200 tokens a minute"):
            ask(client, max_tokens=300)
        ask(client)
        with pytest.raises(openai.RateLimitError, match="may send 3 requests a minute") as refused:
            ask(client)
    assert int(refused.value.response.headers["retry-after"]) >= 1
    with server.openai("sk-free") as client:
        assert "x-ratelimit-limit-requests" not in ask(client, max_tokens=300).headers
    with server.openai("wrong") as client, pytest.raises(openai.AuthenticationError):
        ask(client)


def test_keys_with_salts_of_their_own_share_no_prefix(start_server):
    server = start_server("--api-key", "a", "--api-key", "b", "--cache-salt-per-key")

    def cached(key):
        with server.openai(key) as client:
            usage = client.completions.create(model="", prompt=PROMPT, max_tokens=1).usage
        return usage.prompt_tokens_details.cached_tokens

    assert [cached("a"), cached("b")] == [0, 0]
    assert cached("a") > 16 and cached("b") > 16


def test_a_bad_file_of_keys_is_one_clear_line(kvasir, tmp_path):
    keys = tmp_path / "keys.toml"
    keys.write_text('[[keys]]\nname = "a"\nkey = "k"\nrpm = 3\n')
    result = kvasir("serve", "--port", "0", "--api-keys-file", str(keys))
    assert result.returncode == 1
    assert f"{keys}: line 4: keys[0].rpm: is not known" in result.stderr


@pytest.fixture
def identity(tmp_path):
    """Writes a fresh certificate for 127.0.0.1 and its key over those that are there."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"

    def make(name="first"):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-noenc", "-days", "2", "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1",
             "-keyout", key, "-out", cert],
            check=True,
            capture_output=True,
        )  # fmt: skip
        return str(cert), str(key)

    return make


def trusting(cert):
    return httpx.Client(verify=ssl.create_default_context(cafile=cert), timeout=120)


def test_serves_https(start_server, kvasir, identity, tmp_path):
    cert, key = identity()
    server = start_server("--tls-cert", cert, "--tls-key", key)
    assert server.url.startswith("https://")
    with trusting(cert) as http, openai.OpenAI(
        base_url=server.url + "/v1", api_key="none", http_client=http, max_retries=0
    ) as client:
        prompt = {"model": "", "prompt": "The capital of France is", "max_tokens": 8}
        text = client.completions.create(**prompt, temperature=0).choices[0].text
        stream = client.completions.create(**prompt, temperature=0, stream=True)
        assert "".join(chunk.choices[0].text for chunk in stream) == text
    bench = ("bench", "--url", server.url, "--num-prompts", "2", "--output-len", "4")
    assert "certificate" in kvasir(*bench).stderr
    assert kvasir(*bench, env={"SSL_CERT_FILE": cert}).returncode == 0
    assert kvasir(*bench, "--insecure").returncode == 0
    plain = httpx.get(server.url.replace("https", "http") + "/health")
    assert plain.status_code == 400 and "https://" in plain.json()["error"]["message"]


def test_sighup_reads_the_certificate_again(start_server, identity):
    cert, key = identity()
    server = start_server("--tls-cert", cert, "--tls-key", key)
    with trusting(cert) as old:
        assert old.get(server.url + "/health").status_code == 200
        identity("second")
        server.process.send_signal(signal.SIGHUP)

        def renewed():
            try:
                with trusting(cert) as new:
                    return new.get(server.url + "/health").status_code == 200
            except httpx.ConnectError:
                return False

        wait_for(renewed)
        assert old.get(server.url + "/health").status_code == 200  # its connection goes on


def test_bad_tls_files_are_one_clear_line(kvasir, identity, tmp_path):
    cert, key = identity()
    for args, message in [
        (("--tls-cert", cert), "tls-cert and tls-key: give both or neither"),
        (("--tls-cert", cert, "--tls-key", "/nonexistent"), "tls-key: cannot read /nonexistent"),
        (("--tls-cert", cert, "--tls-key", cert), f"tls-key: {cert}: "),
    ]:
        result = kvasir("serve", "--port", "0", *args)
        assert result.returncode == 1
        lines = [line for line in result.stderr.splitlines() if line.startswith("kvasir:")]
        assert len(lines) == 1 and message in lines[0]


def bad_client(server, number):
    """One connection that does not keep to the protocol; returns what it was answered."""
    host, port = server.url.removeprefix("http://").split(":")
    source = random.Random(number)
    body = b'{"prompt": "x", "max_tokens": 2}'
    head = b"POST /v1/completions HTTP/1.1\r\nContent-Length: %d\r\n" % len(body)
    kinds = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + source.randbytes(506),
        source.randbytes(3000),
        head + b"X: " + b"y" * (1 << 20),
        head + b"\r\n" + body + source.randbytes(100) + b"\r\n\r\n",
        head + b"\r\n" + body[:5],
        head + b"Content-Length: 7\r\n\r\n" + body,
        head + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n" + body,
    ]
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        try:
            connection.sendall(kinds[number % len(kinds)])
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
        except (ConnectionResetError, BrokenPipeError):
            pass
    return answer


def test_bad_clients_harm_nobody_else(start_server):
    server = start_server()
    prompt = {"model": "", "prompt": "Once upon a time", "max_tokens": 60, "temperature": 0}
    with server.openai() as client:
        alone = client.completions.create(**prompt).choices[0].text
        stream = client.completions.create(**prompt, stream=True)
        pieces = [next(stream).choices[0].text]
        answers = [bad_client(server, number) for number in range(21)]
        pieces += [chunk.choices[0].text for chunk in stream]
    assert "".join(pieces) == alone
    for number, status in [(0, b"400"), (2, b"431"), (5, b"400"), (6, b"400")]:
        assert answers[number].startswith(b"HTTP/1.1 " + status), number
    assert answers[3].startswith(b"HTTP/1.1 200") or not answers[3]  # half-closed while it waits
    assert answers[4] == b""
    server.wait_for_metric("kvasir_num_requests_running", 0)
    server.wait_for_metric("kvasir_kv_blocks", 0, state="held")
