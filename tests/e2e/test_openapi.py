"""What /openapi.json says is what the server does: generated requests, right and wrong ones."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,negative_data_rejection"


# Thousands of requests: minutes, on a slow machine more than other tests may take.
@pytest.mark.timeout(900)
def test_generated_requests(start_server):
    server = start_server("--max-model-len", "128", "--request-timeout", "20")
    command = [
        pathlib.Path(sys.executable).with_name("schemathesis"),
        "run",
        server.url + "/openapi.json",
        *("--checks", CHECKS, "--phases", "coverage,fuzzing", "--max-examples", "15"),
        *("--seed", "7", "--request-timeout", "60", "--no-color"),
    ]
    hooks = {"SCHEMATHESIS_HOOKS": "openapi_hooks", "PYTHONPATH": str(HERE)}
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **hooks})
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    generated, passed = re.search(r"(\d+) generated, (\d+) passed", done.stdout).groups()
    assert generated == passed and int(passed) > 1000
    answered = (
        server.metric("kvasir_request_success_total", finished_reason=reason)
        for reason in ("length", "stop")
    )
    assert sum(answered) > 50
