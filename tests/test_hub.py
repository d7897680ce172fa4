"""A name becomes a checkpoint's files; every way in which it cannot is one readable error.

No test reaches the Hub: its client is replaced. Run alone: ``python -m pytest tests/test_hub.py``.
"""

import json
from dataclasses import replace
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import errors

import core
import tiny_models
from broken_checkpoints import failure
from core.checkpoint import hub
from core.checkpoint.catalog import CATALOG
from core.checkpoint.hub import resolve
from core.checkpoint.hub_errors import ClientError
from core.errors import UserError

client = import_module(ClientError.__module__.partition(".")[0])  # httpx or httpx2
REPO = "someone/granite-speech-3.3-mini"
# What a repository may hold; a download takes what it needs of it.
REMOTE = {
    ".gitattributes",
    "README.md",
    "config.json",
    "generation_config.json",
    "lab.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "adapter_config.json",
    "adapter_model.safetensors",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model-00001-of-00003.safetensors",
    "pytorch_model.bin",
    "training_args.bin",
    "10226_10111_000000.wav",
    "model.onnx",
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """A Hub that serves a sharded checkpoint and writes down what is asked of it."""
    remote, local = tmp_path / "remote", tmp_path / "snapshot"
    model = tiny_models.random_model()
    tiny_models.write_checkpoint(remote, tiny_models.raw_config(), model, num_shards=2)
    for name in REMOTE:
        if not (remote / name).exists():
            (remote / name).write_text("{}")
    seen: dict[str, Any] = {"files": [], "revisions": set(), "remote": remote, "online": 0}

    def take(name: str) -> Path:
        local.mkdir(exist_ok=True)
        (local / name).write_bytes((remote / name).read_bytes())
        seen["files"].append(name)
        return local / name

    def ask(revision: str | None, local_files_only: bool) -> None:
        if local_files_only:
            raise errors.LocalEntryNotFoundError("not in the cache")
        seen["revisions"].add(revision)
        seen["online"] += 1

    def hf_hub_download(
        repo: str, name: str, *, revision: str | None, local_files_only: bool
    ) -> str:
        ask(revision, local_files_only)
        if not (remote / name).exists():
            raise errors.EntryNotFoundError(f"404: {name}")
        return str(take(name))

    def snapshot_download(
        repo: str, *, revision: str | None, allow_patterns: list[str], local_files_only: bool
    ) -> str:
        ask(revision, local_files_only)
        for file in sorted(remote.iterdir()):
            if any(fnmatch(file.name, pattern) for pattern in allow_patterns):
                take(file.name)
        return str(local)

    monkeypatch.setattr(hub, "hf_hub_download", hf_hub_download)
    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    return seen


def test_a_download_asks_only_for_what_is_needed(asked: dict[str, Any]):
    files = resolve(REPO, revision="abc")
    taken = set(asked["files"])
    assert {"config.json", "tokenizer.json", "adapter_model.safetensors"} <= taken
    assert {name for name in taken if name.startswith("model-")} == {
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    }
    unwanted = {"README.md", "pytorch_model.bin", "training_args.bin", "model.onnx"}
    assert not taken & (unwanted | {"10226_10111_000000.wav", "model-00001-of-00003.safetensors"})
    assert asked["revisions"] == {"abc"}
    assert files.source == REPO
    assert files.find("nothing", "tokenizer.json") == files.folder / "tokenizer.json"


def test_a_repository_without_an_index_gives_its_single_file(asked: dict[str, Any]):
    remote = asked["remote"]
    (remote / hub.INDEX).unlink()
    (remote / hub.SINGLE).write_bytes((remote / "model-00001-of-00002.safetensors").read_bytes())
    resolve(REPO)
    weights = {name for name in asked["files"] if name.startswith("model")}
    assert weights == {hub.SINGLE}


def test_a_repository_of_pickles_is_refused_without_fetching_them(asked: dict[str, Any]):
    for file in asked["remote"].glob("*.safetensors*"):
        file.unlink()
    assert "has neither" in failure(REPO)
    assert not [name for name in asked["files"] if name.endswith((".bin", ".pt", ".pth"))]


@pytest.mark.parametrize("named", ["pytorch_model.bin", "*", "../config.json", "/etc/passwd"])
def test_an_index_cannot_make_the_download_fetch_anything_else(named: str, asked: dict[str, Any]):
    index = json.dumps({"weight_map": {"encoder.out.bias": named}})
    (asked["remote"] / hub.INDEX).write_text(index)
    assert named in failure(REPO)
    assert not {"pytorch_model.bin", "README.md", "training_args.bin"} & set(asked["files"])


def test_a_broken_index_on_the_hub_is_told_as_such(asked: dict[str, Any]):
    (asked["remote"] / hub.INDEX).write_text('{"weight')
    assert "model.safetensors.index.json: not valid JSON" in failure(REPO)


def test_what_is_in_the_cache_is_used_without_asking(
    asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    def cached(repo: str, name: str = "", *, local_files_only: bool, **_: object) -> str:
        assert local_files_only
        return str(asked["remote"] / name)

    monkeypatch.setattr(hub, "hf_hub_download", cached)
    monkeypatch.setattr(hub, "snapshot_download", cached)
    assert resolve(REPO).folder == asked["remote"]
    assert hub.is_here(REPO)


def test_an_incomplete_cache_is_completed_but_never_when_only_looking(
    asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    cache = asked["remote"].parent / "cache"
    cache.mkdir()
    for name in ("config.json", hub.INDEX):
        (cache / name).write_bytes((asked["remote"] / name).read_bytes())
    fetch, snapshot = hub.hf_hub_download, hub.snapshot_download

    def cached_file(repo: str, name: str, *, local_files_only: bool, **options: Any) -> str:
        if local_files_only:
            return str(cache / name)
        return fetch(repo, name, local_files_only=False, **options)

    def cached_folder(repo: str, *, local_files_only: bool, **options: Any) -> str:
        return str(cache) if local_files_only else snapshot(repo, local_files_only=False, **options)

    monkeypatch.setattr(hub, "hf_hub_download", cached_file)
    monkeypatch.setattr(hub, "snapshot_download", cached_folder)
    assert not hub.is_here(REPO)
    assert asked["online"] == 0
    assert resolve(REPO).shards
    assert asked["online"] > 0


RESPONSE = client.Response(403, request=client.Request("GET", "https://huggingface.co"))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (errors.OfflineModeIsEnabled("offline"), "not in the local cache and the Hub cannot be"),
        (
            errors.LocalEntryNotFoundError("no cache"),
            "not in the local cache and the Hub cannot be",
        ),
        (errors.RepositoryNotFoundError("404", response=RESPONSE), "no repository"),
        (errors.GatedRepoError("403", response=RESPONSE), "licence"),
        (errors.RevisionNotFoundError("404", response=RESPONSE), "no revision 'v9'"),
        (errors.RemoteEntryNotFoundError("404", response=RESPONSE), "no config.json"),
        (errors.HFValidationError("bad id"), "'owner/name'"),
        (errors.HfHubHTTPError("503 busy\nlong story", response=RESPONSE), "failed: 503 busy"),
        (OSError("No space left on device"), "failed: No space left on device"),
        (client.ConnectError("Name or service not known"), "Name or service not known"),
        (client.ReadTimeout("The read operation timed out"), "timed out"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_every_failure_of_the_hub_is_one_sentence(
    error: Exception, told: str, monkeypatch: pytest.MonkeyPatch
):
    def fail(*args: object, **options: object) -> str:
        raise error

    monkeypatch.setattr(hub, "hf_hub_download", fail)
    message = failure(REPO, revision="v9")
    assert told in message
    assert REPO in message


def test_a_download_that_breaks_off_after_the_config(
    asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    def break_off(*args: object, **options: object) -> str:
        raise client.ReadError("connection reset")

    monkeypatch.setattr(hub, "snapshot_download", break_off)
    assert "connection reset" in failure(REPO)


def test_offline_an_unknown_repository_says_what_to_do():
    # HF_HUB_OFFLINE is set for all tests: this is the client's own answer.
    message = failure("nobody-at-all/never-uploaded")
    assert "cannot be reached" in message
    assert "'tiny'" in message


@pytest.mark.parametrize("name", ["large", "./nowhere", "/no/such/folder", "a/b/c", "~/nowhere/x"])
def test_a_name_that_is_nothing_lists_what_there_is(name: str):
    message = failure(name)
    assert repr(name) in message
    assert "granite-speech-3.3-2b" in message


def test_a_bundled_model_that_was_not_made_says_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    model_info = replace(CATALOG["tiny"], source=str(tmp_path / "tiny"))
    monkeypatch.setitem(CATALOG, "tiny", model_info)
    assert "make demo-model" in failure("tiny")


def test_an_unknown_model_type_is_refused_before_its_weights_are_fetched(asked: dict[str, Any]):
    (asked["remote"] / "config.json").write_text('{"model_type": "granite_speech_6"}')
    with pytest.raises(UserError, match="'granite_speech_6'; expected one of: granite_speech, "):
        core.load(REPO, device="cpu")
    assert asked["files"] == ["config.json"]


def test_a_licence_that_forbids_business_is_said_before_the_download(
    asked: dict[str, Any], caplog: pytest.LogCaptureFixture
):
    (asked["remote"] / "config.json").write_text('{"model_type": "stops here"}')
    for name in ("granite-speech-5.0-470m-turboctc", "granite-speech-5.0-470m-turboctc-nc"):
        with pytest.raises(UserError, match="stops here"):
            core.load(name, device="cpu")
    assert [record.getMessage() for record in caplog.records] == [
        "ibm-granite/granite-speech-5.0-470m-turboctc-nc: its licence is CC-BY-NC-SA-4.0: not for "
        "commercial use"
    ]
    assert [info.name for info in CATALOG.values() if not info.commercial_use] == [name]
