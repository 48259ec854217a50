"""Fixtures: the real binary, started on a free port and stopped again."""

import os
import pathlib
import re
import selectors
import signal
import subprocess
import tempfile
import time

import httpx
import openai
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("KVASIR_BINARY", ROOT / "build/release/kvasir"))
START_SECONDS = 60
# Plans of the tests' models are not kept between tests, but where one asks for it.
ENVIRONMENT = {**os.environ, "KVASIR_PLAN_CACHE": "false"}


class Server:
    """A running `kvasir serve`."""

    def __init__(self, *args, model="default", env=None):
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [BINARY, "serve", model, "--port", "0", *args],
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env={**ENVIRONMENT, **(env or {})},
        )
        self.url = self._wait_for_url()

    def _wait_for_url(self):
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            if not selector.select(START_SECONDS):
                self.process.kill()
                raise RuntimeError(f"no address within {START_SECONDS} s")
        line = self.process.stdout.readline()
        match = re.search(r" on (https?://\S+)", line)
        if match is None:
            raise RuntimeError(f"kvasir serve said {line!r} and {self.logged()!r}")
        return match.group(1)

    def logged(self):
        self.log.seek(0)
        return self.log.read()

    def openai(self, api_key="none"):
        return openai.OpenAI(base_url=self.url + "/v1", api_key=api_key, max_retries=0, timeout=120)

    def http(self):
        return httpx.Client(base_url=self.url, timeout=120)

    def metric(self, name, **labels):
        """The value of one sample of /metrics."""
        for line in self.http().get("/metrics").text.splitlines():
            sample, _, value = line.rpartition(" ")
            wanted = all(f'{key}="{text}"' in sample for key, text in labels.items())
            if sample.partition("{")[0] == name and wanted:
                return float(value)
        raise KeyError(name)

    def wait_for_metric(self, name, value, seconds=10, **labels):
        deadline = time.monotonic() + seconds
        while (now := self.metric(name, **labels)) != value:
            assert time.monotonic() < deadline, f"{name} is {now}, not {value}, after {seconds} s"
            time.sleep(0.01)

    def stop(self):
        """SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise
        return self.process.returncode


@pytest.fixture(scope="session")
def binary():
    assert BINARY.exists(), f"{BINARY} is missing: make build"
    return BINARY


@pytest.fixture(scope="session")
def server(binary):
    """The default model, shared by tests that do not change how it is served."""
    running = Server()
    yield running
    assert running.stop() == 0, running.logged()


@pytest.fixture
def client(server):
    with server.openai() as client:
        yield client


@pytest.fixture
def http(server):
    with server.http() as client:
        yield client


@pytest.fixture
def start_server(binary):
    """Starts servers with flags of the test's own and stops them at its end."""
    running = []

    def start(*args, **kwargs):
        running.append(Server(*args, **kwargs))
        return running[-1]

    yield start
    for one in running:
        if one.process.poll() is None:
            assert one.stop() == 0, one.logged()


@pytest.fixture
def kvasir(binary):
    """Runs a command to its end."""

    def run(*args, env=None, **kwargs):
        return subprocess.run(
            [binary, *args],
            capture_output=True,
            text=True,
            timeout=120,
            env={**ENVIRONMENT, **(env or {})},
            stdin=subprocess.DEVNULL,
            **kwargs,
        )

    return run
