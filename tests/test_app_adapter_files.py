"""What may be added as an adapter in the app, and what rubbish is told; no browser.

Run alone: ``python -m pytest tests/test_app_adapter_files.py``.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import tiny_models
from adapters import add, text, write_mine
from app.service.adapter_registry import LONGEST_NAME, unpacked
from app.service.limits import Limits
from app.service.model_actions import remove_adapter
from app.service.service import TranscriptionService
from app.service.settings import Settings
from app.ui import build_app
from core.checkpoint.peft_format import CONFIG, WEIGHTS
from core.errors import UserError
from measuring import RECORDING


@pytest.fixture
def service(speech_folder: Path) -> Iterator[TranscriptionService]:
    """The random checkpoint; its name in the app is its folder."""
    made = TranscriptionService(model=str(speech_folder), device="cpu", dtype="float32")
    yield made
    made.close()


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder with an adapter of that checkpoint."""
    return write_mine(tmp_path)


@pytest.fixture
def clip(tmp_path: Path) -> str:
    file = tmp_path / "noise.wav"
    file.write_bytes(RECORDING)
    return str(file)


class TestWhatCanBeAdded:
    def test_uploads_are_copied_and_a_zip_may_hold_more(
        self, service: TranscriptionService, mine: Path, clip: str, tmp_path: Path
    ) -> None:
        packed = tmp_path / "words.zip"
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("out/training/log.jsonl", "{}")
            archive.writestr("../outside.txt", "never unpacked")
            for file in (CONFIG, WEIGHTS):
                archive.write(mine / file, f"out/{file}")
        assert add(service, mine, "folder") == "folder"
        assert add(service, "", "", packed) == "words"
        assert add(service, "", "pair", mine / WEIGHTS, mine / CONFIG) == "pair"
        packed.unlink()
        texts = {text(service, clip, adapter=name) for name in ("folder", "words", "pair")}
        assert len(texts) == 1
        kept = service.models.adapters.of(service.model)
        assert [one.source for one in kept[1:]] == ["words.zip", f"{WEIGHTS}, {CONFIG}"]
        assert not list(kept[1].folder.parent.rglob("outside.txt"))
        remove_adapter(service, service.model, "words")
        assert not kept[1].folder.exists()
        assert mine.exists()

    @pytest.mark.parametrize(
        ("source", "name", "files", "message"),
        [
            ("", "", [], "no adapter was given; type a folder or a repository id"),
            ("{mine}", "", [CONFIG], "give one of them"),
            ("{mine}/none", "", [], "neither a folder nor a Hub repository id"),
            ("{mine}/..", "", [], "has no adapter_config.json; expected a folder"),
            ("{mine}", "default", [], "is here already; choose another name"),
            ("{mine}", "x" * (LONGEST_NAME + 1), [], "expected 1 to 60 letters"),
            ("{mine}", "a\nb", [], "expected 1 to 60 letters"),
            ("", "", [WEIGHTS], "adapter_model.safetensors came; expected adapter_config.json and"),
            ("", "", ["letter.txt", CONFIG], "letter.txt, adapter_config.json came; expected"),
            ("", "", ["half.zip"], "half.zip holds no adapter_model.safetensors; expected"),
            ("", "", ["bad/" + CONFIG, WEIGHTS], "adapter_config.json: not valid JSON"),
            ("", "", [CONFIG, "bad/" + WEIGHTS], "cannot be read as safetensors"),
            ("", "", ["other/" + CONFIG, "other/" + WEIGHTS], "adapter shapes"),
        ],
    )
    def test_rubbish_gets_a_sentence_and_leaves_nothing(
        self,
        service: TranscriptionService,
        mine: Path,
        clip: str,
        source: str,
        name: str,
        files: list[str],
        message: str,
    ) -> None:
        (mine / "letter.txt").write_text("dear sir")
        for part in ("bad", "other"):
            (mine / part).mkdir()
        (mine / "bad" / CONFIG).write_text("{")
        (mine / "bad" / WEIGHTS).write_bytes(b"dear sir")
        raw = tiny_models.raw_config()
        raw["text_config"]["hidden_size"] *= 2
        tiny_models.write_adapter(mine / "other", tiny_models.random_model(raw))
        with zipfile.ZipFile(mine / "half.zip", "w") as archive:
            archive.write(mine / CONFIG, CONFIG)
        before = text(service, clip)
        with pytest.raises(ValueError, match=message) as caught:
            add(service, source.format(mine=mine), name, *(mine / file for file in files))
        assert "granite-speech-lab-adapters" not in str(caught.value)
        assert service.summary(service.model).adapters == ()
        assert text(service, clip) == before

    def test_a_zip_of_very_many_files_is_refused_before_it_is_listed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
            for number in range(2_000):
                archive.writestr(f"{number}", b"")
        monkeypatch.delattr(zipfile, "ZipFile")  # which would list them
        with pytest.raises(UserError, match=r"many\.zip holds too many files"):
            unpacked([str(tmp_path / "many.zip")], tmp_path)

    def test_strangers_add_and_choose_none(self, speech_folder: Path, mine: Path) -> None:
        service = TranscriptionService(
            model=str(speech_folder), limits=Limits(only=frozenset({"tiny"}))
        )
        with pytest.raises(ValueError, match="not taken on this public page"):
            add(service, mine)
        with pytest.raises(ValueError, match="not taken on this public page"):
            service.limits.check(Settings(model="tiny", adapter="mine"))
        ids = [getattr(block, "elem_id", "") for block in build_app(service).blocks.values()]
        assert "adapters" not in ids
