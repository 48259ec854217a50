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


def test_rounded_weights_stay_close_to_what_they_were(kvasir, tmp_path):
    figures = {}
    for weights, group in [("int8", 32), ("int4", 32), ("fp8", 0)]:
        built = kvasir("build", "default", "--weights", weights, "--group-size", str(group),
                       "-o", tmp_path / weights)  # fmt: skip
        assert built.returncode == 0, built.stderr
        plan = built.stdout.strip()
        figures[weights] = evaluate(kvasir, plan, "--reference", "default")
    assert (tmp_path / "int4/model.kvplan").stat().st_size < 0.8 * (
        tmp_path / "int8/model.kvplan"
    ).stat().st_size
    assert figures["int8"]["tokens"] == 511
    assert abs(figures["int8"]["perplexity_ratio"] - 1) < 0.02
    assert figures["int8"]["kl"] < 0.02 and figures["int8"]["same_best"] > 0.93
    # (What the file holds is of 4 bits already, on a grid of minimums that zero points do not meet.)
    assert figures["int8"]["kl"] < figures["fp8"]["kl"] < 0.1
    assert figures["fp8"]["kl"] < figures["int4"]["kl"] < 0.6
    # The same without a reference, and whatever the window is cut into.
    alone = evaluate(kvasir, tmp_path / "int8")
    assert alone["perplexity"] == pytest.approx(figures["int8"]["perplexity"], rel=1e-9)
    assert alone.keys() == {"tokens", "nll", "perplexity"}
    ran = kvasir("eval", "default", "--text", tmp_path / "none")
    assert ran.returncode == 1 and "none" in ran.stderr
    ran = kvasir("build", "default", "--weights", "int8", "--activations", "f32", "-o", tmp_path)
    assert ran.returncode == 1 and "weights" in ran.stderr
    for weights, size in [("int4", "40"), ("fp8", "64"), ("stored", "64")]:
        ran = kvasir("build", "default", "--weights", weights, "--group-size", size, "-o", tmp_path)
        assert ran.returncode == 1 and "group-size" in ran.stderr


@pytest.mark.parametrize("name", ["gptq_act_order", "fp8_block"])
def test_quantised_checkpoints_are_served(kvasir, start_server, tmp_path, name):
    folder = ROOT / "tests/data/golden/quantized" / name
    built = kvasir("build", folder, "-o", tmp_path / "plan")
    assert built.returncode == 0, built.stderr
    answers = []
    for model in folder, tmp_path / "plan":
        running = start_server("--skip-tokenizer-init", model=str(model))
        with running.http() as http:
            body = {"prompt": [5, 17, 44], "max_tokens": 8, "return_token_ids": True}
            response = http.post("/v1/completions", json={**body, "temperature": 0})
            assert response.status_code == 200, response.text
            answers.append(response.json()["choices"][0]["token_ids"])
    assert answers[0] == answers[1]


def test_a_damaged_quantised_checkpoint_names_its_tensor(kvasir, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(ROOT / "tests/data/golden/quantized/awq", folder)
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content.replace(b".qzeros", b".qzerox"))
    ran = kvasir("build", folder, "-o", tmp_path / "plan")
    assert ran.returncode == 1 and "qzeros': is missing" in ran.stderr
