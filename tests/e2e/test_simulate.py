"""kvasir simulate: figures of a replayed trace, and what bad input gets."""

import json

import pytest

POLICIES = ["least-time", "round-robin", "least-loaded", "power-of-two", "prefix-only"]


def request(at, ids):
    tokens = 512 * len(ids)
    return json.dumps(
        {"timestamp": at, "input_length": tokens, "output_length": 9, "hash_ids": ids}
    )


@pytest.fixture
def trace(tmp_path):
    """A hundred prompts, each followed by a longer one that begins with it."""
    path = tmp_path / "trace.jsonl"
    first = [request(1000 * i, [10 * i, 10 * i + 1]) for i in range(100)]
    second = [request(100_000 + 1000 * i, [10 * i, 10 * i + 1, 10 * i + 2]) for i in range(100)]
    path.write_text("\n".join(first + second) + "\n")
    return path


def test_policies_beside_each_other(kvasir, trace):
    run = kvasir("simulate", "--trace", trace, "--policy", "all", "--json")
    assert run.returncode == 0, run.stderr
    results = json.loads(run.stdout)["results"]
    assert [result["policy"] for result in results] == POLICIES
    for result in results:
        assert result["requests"] == 100 + 100
        assert result["refused"] == 0
    assert results[0]["block_hit"] > 0.35 > results[1]["block_hit"]  # of at most 0.4
    assert results[0]["max_over_mean_work"] < 1.1


def test_a_table_names_the_policy(kvasir, trace):
    run = kvasir("simulate", "--trace", trace, "--lose-events", "0.1", "--frontends", "2")
    assert run.returncode == 0, run.stderr
    assert "least-time" in run.stdout
    assert "max/mean work" in run.stdout


@pytest.mark.parametrize(
    "flags, line",
    [
        (["--policy", "fastest"], "policy: 'fastest' is no policy; there are"),
        (["--workers", "0"], "workers: must be from 1 to 256"),
        (["--lose-events", "2"], "lost events: must be a share from 0 to 1"),
        (["--speed", "0"], "speed: must be from 1e-6 to 1e6"),
        (["--delay-ms", "inf"], "delay: must be from 0 to 1e6 seconds"),
        (["--block-tokens", "16"], ":1: 2 hash_ids for 1024 tokens in blocks of 16: expected 64"),
        (["--trace", "/nonexistent"], "/nonexistent: cannot be opened"),
    ],
)
def test_bad_input_is_one_line(kvasir, trace, flags, line):
    run = kvasir("simulate", *([] if "--trace" in flags else ["--trace", trace]), *flags)
    assert run.returncode == 1
    assert line in run.stderr
    assert run.stderr.count("\n") == 1
    assert run.stdout == ""
