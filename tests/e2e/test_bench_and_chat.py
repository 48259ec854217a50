"""`kvasir bench` and `kvasir chat` against a running server."""

import json
import subprocess

import pytest


@pytest.fixture
def bench(kvasir, server, tmp_path):
    def run(*args):
        path = tmp_path / "report.json"
        result = kvasir("bench", "--url", server.url, "--json", str(path), *args)
        assert result.returncode == 0, result.stderr
        return result.stdout, json.loads(path.read_text())

    return run


def test_bench_measures_exact_lengths(bench):
    table, report = bench(
        "--num-prompts", "6", "--max-concurrency", "3", "--input-len", "40", "--output-len", "12"
    )
    assert "TTFT" in table and "goodput" in table.lower()
    text = json.dumps(report)
    assert '"failed": 0' in text
    assert report["output_tokens"] == 6 * 12
    assert report["input_tokens"] == 6 * 40


def test_bench_talks_in_turns(bench):
    _, report = bench(
        "--prompts", "chat", "--num-prompts", "2", "--turns", "3", "--input-len", "20",
        "--output-len", "8",
    )  # fmt: skip
    assert report["output_tokens"] == 2 * 3 * 8
    assert report["cached_tokens"] > 0


def test_bench_names_a_bad_option_and_a_missing_server(kvasir):
    bad = kvasir("bench", "--output-len", "0")
    assert bad.returncode == 1
    assert len(bad.stderr.strip().splitlines()) == 1
    gone = kvasir("bench", "--url", "http://127.0.0.1:1", "--num-prompts", "1")
    assert gone.returncode == 1
    assert "127.0.0.1:1" in gone.stderr


def test_chat_streams_answers_from_a_terminal(binary, server):
    result = subprocess.run(
        [binary, "chat", "--url", server.url, "--temperature", "0", "--max-tokens", "30"],
        input="Write the word hello.\n/reset\nName a color.\n/quit\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    assert "Hello" in result.stdout and "color" in result.stdout


def test_chat_says_that_no_server_answers(binary):
    result = subprocess.run(
        [binary, "chat", "--url", "http://127.0.0.1:1"],
        input="hi\n", capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert result.returncode == 1
