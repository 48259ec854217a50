"""`kvasir pull` against a hub on this machine."""

import os
import random

import pytest

from fake_hub import FakeHub, File

CONTENT = random.Random(1).randbytes(3_000_000)


@pytest.fixture
def hub():
    hub = FakeHub()
    yield hub
    hub.close()


@pytest.fixture
def pull(kvasir, hub, tmp_path):
    def run(reference="owner/repo", **env):
        env = {"HF_ENDPOINT": hub.url, "KVASIR_CACHE": str(tmp_path), "HF_TOKEN": "", **env}
        return kvasir("pull", reference, env=env)

    return run


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "hub/owner/repo"


def test_fetches_a_gguf_once(pull, hub, folder):
    hub.files = {"README.md": File(b"readme", lfs=False), "m.gguf": File(CONTENT)}
    first = pull()
    assert first.returncode == 0, first.stderr
    assert first.stdout.strip() == str(folder / "m.gguf")
    assert (folder / "m.gguf").read_bytes() == CONTENT
    assert os.listdir(folder) == ["m.gguf"]
    second = pull()
    assert second.stdout == first.stdout
    assert len(hub.downloads()) == 1


def test_fetches_a_safetensors_folder(pull, hub, folder):
    hub.page_size = 2  # the listing comes in pages
    hub.files = {
        "config.json": File(b"{}", lfs=False),
        "tokenizer.json": File(b"{}", lfs=False),
        "model-00001-of-00002.safetensors": File(CONTENT[:1000]),
        "model-00002-of-00002.safetensors": File(CONTENT[1000:]),
        "pytorch_model.bin": File(b"pickle"),
    }
    result = pull()
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str(folder)
    assert sorted(os.listdir(folder)) == sorted(set(hub.files) - {"pytorch_model.bin"})


def test_lists_the_models_when_there_are_several(pull, hub, folder):
    hub.files = {f"m-{quant}.gguf": File(CONTENT) for quant in ("Q4_0", "Q8_0")}
    result = pull()
    assert result.returncode == 1
    assert "m-Q4_0.gguf" in result.stderr and "m-Q8_0.gguf" in result.stderr
    assert pull("owner/repo:Q8_0").stdout.strip() == str(folder / "m-Q8_0.gguf")


def test_goes_on_where_a_transfer_broke_off(pull, hub, folder):
    hub.files = {"m.gguf": File(CONTENT, break_after=[1_000_000, 500_000])}
    result = pull()
    assert result.returncode == 0, result.stderr
    assert (folder / "m.gguf").read_bytes() == CONTENT
    requests = hub.downloads()
    assert [request.range for request in requests] == [None, "bytes=1000000-", "bytes=1500000-"]
    assert sum(request.sent for request in requests) == len(CONTENT)


def test_goes_on_in_the_next_run(pull, hub, folder):
    hub.files = {"m.gguf": File(CONTENT, break_after=[300_000] * 5)}
    result = pull()
    assert result.returncode == 1
    assert "byte 1500000" in result.stderr
    assert os.listdir(folder) == ["m.gguf.part"]
    assert pull().returncode == 0
    assert (folder / "m.gguf").read_bytes() == CONTENT
    assert sum(request.sent for request in hub.downloads()) == len(CONTENT)


def test_starts_again_where_ranges_are_ignored(pull, hub, folder):
    hub.files = {"m.gguf": File(CONTENT, break_after=[1000], ignore_range=True)}
    assert pull().returncode == 0
    assert (folder / "m.gguf").read_bytes() == CONTENT


def test_refuses_and_removes_what_has_the_wrong_digest(pull, hub, folder):
    hub.files = {"m.gguf": File(CONTENT, sha256="0" * 64)}
    result = pull()
    assert result.returncode == 1
    assert "sha256" in result.stderr
    assert os.listdir(folder) == []


def test_refuses_more_bytes_than_were_listed(pull, hub, folder):
    file = File(CONTENT)
    file.listing = lambda path: {"type": "file", "path": path, "size": 100}
    hub.files = {"m.gguf": file}
    assert pull().returncode == 1
    assert not (folder / "m.gguf").exists()


def test_waits_out_a_failing_hub(pull, hub, folder):
    hub.files = {"m.gguf": File(CONTENT, statuses=[500, 503])}
    assert pull().returncode == 0
    assert (folder / "m.gguf").read_bytes() == CONTENT


@pytest.mark.parametrize("status", [500, 404, 403])
def test_names_a_failure_in_one_line(pull, hub, status):
    hub.files = {"m.gguf": File(CONTENT, statuses=[status] * 5)}
    result = pull()
    assert result.returncode == 1
    assert len(result.stderr.strip().splitlines()) == 1
    assert "m.gguf" in result.stderr


def test_says_what_is_not_there(pull, hub):
    hub.files = {}
    assert "owner/other: not found" in pull("owner/other").stderr
    assert "neither" in pull("owner/repo").stderr
    assert "expected OWNER/REPO" in pull("nonsense").stderr
    hub.close()
    assert pull().returncode == 1


def test_sends_the_token_to_the_hub_alone(pull, hub):
    hub.token = "secret-token"
    hub.files = {"m.gguf": File(CONTENT)}
    refused = pull()
    assert refused.returncode == 1
    assert "HF_TOKEN" in refused.stderr
    allowed = pull(HF_TOKEN="secret-token")
    assert allowed.returncode == 0, allowed.stderr
    assert {request.authorization for request in hub.storage_requests} == {None}
    assert "secret-token" not in refused.stderr + allowed.stderr + allowed.stdout


def test_refuses_paths_that_leave_the_cache(pull, hub, tmp_path):
    for path in ("../evil.gguf", "/tmp/evil.gguf", "a/../../evil.gguf"):
        hub.files = {path: File(CONTENT)}
        result = pull()
        assert result.returncode == 1
        assert "refused" in result.stderr
    assert not list(tmp_path.rglob("evil*"))
