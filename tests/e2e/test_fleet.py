"""Workers in processes of their own: the same answers, whoever dies."""

import os
import re
import signal
import subprocess
import threading
import time

import pytest

from conftest import BINARY, ENVIRONMENT, Server

TEXTS = ["The capital of France is", "def quicksort(items):\n", "Once upon a time", "1 2 3 4 5"]
START_SECONDS = 60


def bodies():
    for i, text in enumerate(TEXTS):
        yield {"prompt": text, "max_tokens": 120, "temperature": 0, "ignore_eos": True}
        yield {"prompt": text, "max_tokens": 100, "temperature": 0.9, "seed": i, "n": 2,
               "presence_penalty": 0.5, "logprobs": 2, "ignore_eos": True}
    yield {"prompt": "A person:\n", "max_tokens": 200, "temperature": 1, "seed": 3,
           "structured_outputs": {"json": {
               "type": "object",
               "properties": {"name": {"type": "string", "maxLength": 30},
                              "age": {"type": "integer", "minimum": 0, "maximum": 150}},
               "required": ["name", "age"], "additionalProperties": False}}}
    yield {"prompt": "The sea", "max_tokens": 40, "n": 2, "use_beam_search": True, "best_of": 2,
           "temperature": 0}


def ask(server, body):
    with server.http() as http:
        answer = http.post("/v1/completions", json=body)
        assert answer.status_code == 200, answer.text
        return [(c["text"], c["finish_reason"], c["logprobs"]) for c in answer.json()["choices"]]


def ask_all(server):
    """All at once, in threads: the answers in order."""
    answers = {}

    def one(i, body):
        answers[i] = ask(server, body)

    threads = [threading.Thread(target=one, args=each) for each in enumerate(bodies())]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [answers.get(i) for i in range(len(threads))]


def children(pid):
    """The process ids of a server's workers."""
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        first = file.read().split()
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/children") as file:
            first += file.read().split()
    return sorted({int(child) for child in first})


@pytest.fixture(scope="module")
def alone(server):
    return [ask(server, body) for body in bodies()]


@pytest.fixture(scope="module")
def fleet(binary):
    running = Server("--workers", "2", env={"KVASIR_PLAN_CACHE": "true"})
    yield running
    assert running.stop() == 0, running.logged()


def test_workers_give_the_answers_of_one_process(fleet, alone):
    assert ask_all(fleet) == alone
    assert len(children(fleet.process.pid)) == 2


def test_a_killed_worker_costs_no_token(fleet, alone):
    """Two are killed, one after the other, while all requests run."""
    stop = threading.Event()
    killed = []

    def kill():
        while not stop.wait(1.0) and len(killed) < 4:
            victim = children(fleet.process.pid)[len(killed) % 2]
            os.kill(victim, signal.SIGKILL)
            killed.append(victim)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        for _ in range(3):
            assert ask_all(fleet) == alone
    finally:
        stop.set()
        killer.join()
    assert killed
    assert "goes on at" in fleet.logged()
    assert "is started again" in fleet.logged()


def test_streams_and_tools_of_clients_work(fleet):
    with fleet.openai() as client:
        stream = client.chat.completions.create(
            model="", messages=[{"role": "user", "content": "Name three colors."}], stream=True,
            max_tokens=20, temperature=0)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    assert text
    with fleet.http() as http:
        assert http.get("/health").status_code == 200
        too_long = http.post("/v1/completions", json={"prompt": [1] * 9000, "max_tokens": 1})
        assert too_long.status_code == 400


def test_workers_die_with_their_server(binary):
    server = Server("--workers", "2", env={"KVASIR_PLAN_CACHE": "true"})
    workers = children(server.process.pid)
    assert len(workers) == 2
    server.process.kill()
    server.process.wait()
    deadline = time.monotonic() + 20
    while any(os.path.exists(f"/proc/{pid}") for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Worker:
    def __init__(self, *args):
        self.process = subprocess.Popen(
            [BINARY, "worker", "default", "--listen", "127.0.0.1:0", "--threads", "1", *args],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=ENVIRONMENT)
        line = self.process.stdout.readline()
        self.address = re.search(r" on (\S+)$", line.strip()).group(1)

    def stop(self):
        self.process.terminate()
        assert self.process.wait(30) == 0


def start_frontend(*args):
    frontend = Server.__new__(Server)
    frontend.log = __import__("tempfile").TemporaryFile("w+")
    frontend.process = subprocess.Popen(
        [BINARY, "frontend", "default", "--port", "0", *args],
        stdout=subprocess.PIPE, stderr=frontend.log, text=True, env=ENVIRONMENT)
    frontend.url = frontend._wait_for_url()
    return frontend


def test_two_frontends_share_workers_that_were_started_by_hand(binary, alone):
    workers = [Worker(), Worker()]
    named = [word for worker in workers for word in ("--worker", worker.address)]
    frontends = [start_frontend(*named) for _ in range(2)]
    try:
        body = next(bodies())
        for frontend in frontends:
            assert ask(frontend, body) == alone[0]
        frontends[0].process.kill()  # loses its own connections, and no others
        frontends[0].process.wait()
        assert ask(frontends[1], body) == alone[0]
        workers[0].stop()
        assert ask(frontends[1], body) == alone[0]
    finally:
        assert frontends[1].stop() == 0
        workers[1].stop()


def test_bad_options_are_named(kvasir):
    none = kvasir("frontend", "default", "--port", "0")
    assert none.returncode == 1 and "worker:" in none.stderr
    nobody = kvasir("frontend", "default", "--port", "0", "--worker", "127.0.0.1:9",
                    "--worker-timeout", "0.3")
    assert nobody.returncode == 1 and "127.0.0.1:9" in nobody.stderr
    open_to_all = kvasir("worker", "default", "--listen", "0.0.0.0:0")
    assert open_to_all.returncode == 1 and "--allow-remote" in open_to_all.stderr
    missing = kvasir("serve", "/nowhere.gguf", "--workers", "2", "--port", "0")
    assert missing.returncode == 1 and "/nowhere.gguf" in missing.stderr
