"""kvasir build and eval, the plans that build makes and those that serve keeps."""

import json
import os
import shutil

import pytest
from conftest import ROOT

TINY = ROOT / "tests/data/golden/tiny"
SONNETS = ROOT / "tests/data/golden/text/sonnets.txt"
IDS = [5, 17, 200, 3, 44, 91]


def answer(server):
    """Greedy token ids, and what decides that they are the same."""
    with server.http() as http:
        body = {"prompt": IDS, "max_tokens": 12, "temperature": 0, "return_token_ids": True}
        response = http.post("/v1/completions", json=body)
        assert response.status_code == 200, response.text
        return response.json()["choices"][0]["token_ids"]


@pytest.fixture
def tiny(tmp_path):
    """A folder of its own with a model that has no tokenizer."""
    folder = tmp_path / "tiny"
    shutil.copytree(TINY / "qwen3_moe", folder)
    return folder


def test_a_plan_is_a_whole_model(kvasir, start_server, server, tmp_path):
    built = kvasir("build", "default", "-o", tmp_path / "plan")
    assert built.returncode == 0, built.stderr
    assert built.stdout.strip() == str(tmp_path / "plan/model.kvplan")
    planned = start_server(model=str(tmp_path / "plan"))
    assert answer(planned) == answer(server)
    texts = []
    for running in planned, server:
        with running.openai() as client:
            chat = client.chat.completions.create(
                model="", messages=[{"role": "user", "content": "Hi"}], temperature=0, max_tokens=8
            )
            texts.append(chat.choices[0].message.content)
    assert texts[0] == texts[1]
    # How a plan is run is not fixed when it is built.
    other = start_server("--max-model-len", "64", "--block-size", "32", model=built.stdout.strip())
    assert answer(other) == answer(server)


def test_serve_keeps_its_plan_until_the_model_changes(start_server, tiny, tmp_path):
    cache = {"KVASIR_CACHE": str(tmp_path / "cache"), "KVASIR_PLAN_CACHE": "true"}

    def start():
        running = start_server("--skip-tokenizer-init", model=str(tiny), env=cache)
        ids = answer(running)
        assert running.stop() == 0
        return ids, running.logged()

    first, _ = start()
    (plan,) = (tmp_path / "cache/plans").iterdir()
    written = plan.stat().st_mtime_ns
    second, log = start()
    assert second == first and "compiling again" not in log
    assert plan.stat().st_mtime_ns == written
    os.utime(tiny / "model.safetensors", ns=(1, 1))
    third, log = start()
    assert third == first and "compiling again" in log and "model.safetensors changed" in log
    plan.write_bytes(plan.read_bytes()[:5000])
    fourth, log = start()
    assert fourth == first and "compiling again" in log and str(plan) in log
    assert start()[0] == first


def test_what_is_wrong_with_a_plan_is_said(kvasir, tiny, tmp_path):
    output = tmp_path / "plan"
    assert kvasir("build", tiny, "-o", output).returncode == 0
    plan = output / "model.kvplan"
    whole = plan.read_bytes()

    def refused(content, *flags):
        plan.write_bytes(content)
        ran = kvasir("serve", output, "--skip-tokenizer-init", "--port", "0", *flags)
        assert ran.returncode == 1 and ran.stderr.count("\n") == 1, ran.stderr
        assert str(plan) in ran.stderr
        return ran.stderr

    assert "should have" in refused(whole[:-1])
    assert "magic" in refused(b"GGUF" + whole[4:])
    assert "build it again" in refused(whole[:8] + b"\x63" + whole[9:])
    assert "activations 'int8'" in refused(whole, "--activations", "f32")
    ran = kvasir("build", tmp_path / "nowhere", "-o", output)
    assert ran.returncode == 1 and "nowhere" in ran.stderr
    assert kvasir("build", tiny).returncode == 1


def test_explain_shows_the_graph_before_and_after(kvasir, tiny):
    ran = kvasir("build", tiny, "--explain")
    assert ran.returncode == 0, ran.stderr
    before, _, after = ran.stdout.partition("After: ")
    assert "activate" in before and "activate" not in after
    assert "gated" in after and "rope_kv_write" in after and "grouped_matmul" in after
    above = float(ran.stdout.rpartition("bytes, ")[2].split(" %")[0])
    assert 0 <= above <= 2


def evaluate(kvasir, model, *flags):
    ran = kvasir("eval", model, "--text", SONNETS, "--max-tokens", "512", "--json", *flags)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_the_type_of_kv_is_the_plans_unless_said_otherwise(kvasir, tmp_path):
    built = kvasir("build", "default", "--kv", "int8", "--explain", "-o", tmp_path)
    assert built.returncode == 0, built.stderr
    # 30 layers of 3 heads: 64 columns of K and of V, a scale each.
    assert f"KV in int8: {30 * 3 * 2 * (64 + 4)} bytes a token" in built.stdout
    int8 = evaluate(kvasir, tmp_path)
    assert int8 == evaluate(kvasir, "default", "--kv-cache-dtype", "int8")
    bf16 = evaluate(kvasir, tmp_path, "--kv-cache-dtype", "bf16")
    assert bf16 == evaluate(kvasir, "default")
    assert int8["nll"] != bf16["nll"]
    # Less is chance, as more tokens show (docs/quality.md).
    assert 0.98 * bf16["perplexity"] < int8["perplexity"] <= 1.003 * bf16["perplexity"]
    ran = kvasir("build", "default", "--kv", "int3", "-o", tmp_path)
    assert ran.returncode != 0 and "int3" in ran.stderr


def test_rounded_weights_stay_close_to_what_they_were(kvasir, tmp_path):
    figures = {}
    for weights in "int8", "int4":
        built = kvasir("build", "default", "--weights", weights, "-o", tmp_path / weights)
        assert built.returncode == 0, built.stderr
        plan = built.stdout.strip()
        figures[weights] = evaluate(kvasir, plan, "--reference", "default")
    assert (tmp_path / "int4/model.kvplan").stat().st_size < 0.8 * (
        tmp_path / "int8/model.kvplan"
    ).stat().st_size
    assert figures["int8"]["tokens"] == 511
    assert abs(figures["int8"]["perplexity_ratio"] - 1) < 0.02
    assert figures["int8"]["kl"] < 0.02 and figures["int8"]["same_best"] > 0.93
    assert figures["int8"]["kl"] < figures["int4"]["kl"] < 0.3
    # The same without a reference, and whatever the window is cut into.
    alone = evaluate(kvasir, tmp_path / "int8")
    assert alone["perplexity"] == pytest.approx(figures["int8"]["perplexity"], rel=1e-9)
    assert alone.keys() == {"tokens", "nll", "perplexity"}
    ran = kvasir("eval", "default", "--text", tmp_path / "none")
    assert ran.returncode == 1 and "none" in ran.stderr
    ran = kvasir("build", "default", "--weights", "int8", "--activations", "f32", "-o", tmp_path)
    assert ran.returncode == 1 and "weights" in ran.stderr
