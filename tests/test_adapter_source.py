"""Where an adapter comes from: a folder, or a repository of the Hub, whose client is replaced.

Run alone: ``python -m pytest tests/test_adapter_source.py``.
"""

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

import tiny_models
from core.checkpoint import adapter_source
from core.checkpoint.adapter_source import resolve_adapter
from core.checkpoint.safetensors_io import CheckpointError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "mine"
    made.mkdir()
    tiny_models.write_adapter(made, tiny_models.random_model(seed=1), seed=2)
    return made


def test_a_folder_is_used_as_it_is(folder: Path) -> None:
    assert resolve_adapter(str(folder)) == folder


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mine", "neither a folder nor a Hub repository id"),
        ("/no/where", "neither a folder nor a Hub repository id"),
        ("./no/where", "expected a folder with adapter_config.json"),
    ],
)
def test_a_name_that_leads_nowhere_gets_a_sentence(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve_adapter(name)


def test_a_file_or_half_an_adapter_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="is a file; expected the folder"):
        resolve_adapter(str(folder / CONFIG))
    (folder / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match=r"has no adapter_model\.safetensors"):
        resolve_adapter(str(folder))


def test_of_a_repository_the_two_files_are_fetched_once_and_nothing_else(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    asked: list[tuple[str, bool]] = []

    def download(repo: str, file: str, *, local_files_only: bool) -> str:
        assert repo == "me/adapter"
        asked.append((file, local_files_only))
        if local_files_only and not (cache / file).is_file():
            raise LocalEntryNotFoundError("not here")
        shutil.copyfile(folder / file, cache / file)
        return str(cache / file)

    monkeypatch.setattr(adapter_source, "hf_hub_download", download)
    monkeypatch.setattr(adapter_source, "refuse_without_network", lambda *_: None)
    assert resolve_adapter("me/adapter") == cache
    assert asked == [(CONFIG, True), (CONFIG, False), (WEIGHTS, False)]
    asked.clear()
    assert resolve_adapter("me/adapter") == cache
    assert all(local for _, local in asked)
    assert json.loads((cache / CONFIG).read_text())["peft_type"] == "LORA"


def test_a_repository_that_is_no_adapter_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(repo: str, file: str, *, local_files_only: bool) -> str:
        if local_files_only:
            raise LocalEntryNotFoundError("not here")
        raise EntryNotFoundError("404")

    monkeypatch.setattr(adapter_source, "hf_hub_download", download)
    monkeypatch.setattr(adapter_source, "refuse_without_network", lambda *_: None)
    with pytest.raises(ValueError, match="'me/model' has not both adapter_config.json and"):
        resolve_adapter("me/model")


def test_without_a_network_it_says_so() -> None:
    with pytest.raises(ValueError, match="cannot be reached; connect once to download it, or give"):
        resolve_adapter("me/adapter")
