"""What operators use: the access log."""

import json
import signal
import time

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
