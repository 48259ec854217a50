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
    # Few tokens, so of the kind that is measured.
    calibrate = ["--calibrate", SONNETS, "--calibration-tokens", "1536"]
    builds = {
        "groups": ["--weights", "int8", "--group-size", "32"],
        "rows": ["--weights", "int8"],
        "calibrated": ["--weights", "int8", *calibrate],
        "fp8": ["--weights", "fp8"],
    }
    figures = {}
    for name, flags in builds.items():
        built = kvasir("build", "default", *flags, "-o", tmp_path / name)
        assert built.returncode == 0, built.stderr
        figures[name] = evaluate(kvasir, built.stdout.strip(), "--reference", "default")
    assert figures["groups"]["tokens"] == 511
    assert abs(figures["groups"]["perplexity_ratio"] - 1) < 0.02
    assert figures["groups"]["kl"] < 0.02 and figures["groups"]["same_best"] > 0.93
    assert figures["calibrated"]["kl"] < 0.75 * figures["rows"]["kl"]
    assert figures["rows"]["kl"] < figures["fp8"]["kl"] < 0.1
    # The same without a reference, and whatever the window is cut into.
    alone = evaluate(kvasir, tmp_path / "groups")
    assert alone["perplexity"] == pytest.approx(figures["groups"]["perplexity"], rel=1e-9)
    assert alone.keys() == {"tokens", "nll", "perplexity"}
    ran = kvasir("eval", "default", "--text", tmp_path / "none")
    assert ran.returncode == 1 and "none" in ran.stderr


def test_int4_keeps_what_has_four_bits(kvasir):
    folder = ROOT / "tests/data/golden/quantized/gguf_iq4_nl_mxfp4/model.gguf"
    ran = kvasir("build", folder, "--weights", "int4", "--explain")
    assert ran.returncode == 0, ran.stderr
    assert "IQ4_NL as IQ4_NL" in ran.stdout and "MXFP4 as MXFP4" in ran.stdout


def test_what_is_wrong_with_a_rounding_is_said(kvasir, tmp_path):
    few = tmp_path / "few.txt"
    few.write_text("three small words")
    for flags, said in [
        (["--weights", "int8", "--activations", "f32"], "weights"),
        (["--weights", "int4", "--group-size", "40"], "group-size"),
        (["--weights", "fp8", "--group-size", "64"], "group-size"),
        (["--weights", "stored", "--group-size", "64"], "group-size"),
        (["--weights", "fp8", "--calibrate", few], "calibrate"),
        (["--weights", "int8", "--calibrate", tmp_path / "none"], "calibrate: cannot read"),
        (["--weights", "int8", "--calibrate", few], "calibrate: the text has"),
    ]:
        ran = kvasir("build", "default", *flags, "-o", tmp_path / "plan")
        assert ran.returncode == 1 and said in ran.stderr, ran.stderr


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
