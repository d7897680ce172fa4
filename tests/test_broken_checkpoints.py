"""Every broken file of a checkpoint or an adapter is one line, soon, and never a traceback.

Run alone: ``python -m pytest tests/test_broken_checkpoints.py``.
"""

import json
import time
from pathlib import Path

import pytest
from safetensors.torch import save_file

import core
import tiny_models
from broken_checkpoints import broken, prepare
from core.checkpoint.config_granite_speech5_ctc import parse_granite_speech5_ctc
from core.errors import UserError
from core.model.granite_speech5_ctc import GraniteSpeech5CTC
from granite_speech5 import raw_ctc_config, write_byte_level_tokenizer


@pytest.fixture
def ctc_folder(tmp_path: Path) -> Path:
    """A random checkpoint of the family ``granite_speech5_ctc``."""
    folder = tmp_path / "ctc"
    folder.mkdir()
    size = {"vocab_size": 259}  # blank, the bytes, two pieces
    raw = raw_ctc_config(**size) | size
    (folder / "config.json").write_text(json.dumps(raw))
    write_byte_level_tokenizer(folder / "tokenizer.json")
    model = GraniteSpeech5CTC(parse_granite_speech5_ctc(raw, "test"))
    save_file(tiny_models.randomise(model, seed=1).state_dict(), folder / "model.safetensors")
    return folder


def complaint(folder: Path) -> str | None:
    """What loading says, or None where it says nothing; anything but a UserError is raised."""
    try:
        core.load(folder, device="cpu", dtype="float32")
    except UserError as error:
        return str(error)
    return None


def check(speech_folder: Path, tmp_path: Path, *, seed: int, count: int) -> None:
    whole = prepare(tmp_path / "whole", speech_folder)
    assert complaint(whole) is None
    wrong = []
    for done, folder in broken(whole, tmp_path, seed=seed, count=count):
        begin = time.perf_counter()
        try:
            said = complaint(folder)
        except Exception as error:  # counted, so that one run shows all of them
            wrong.append(f"{done}: {type(error).__name__}: {error}"[:300])
            continue
        if said is None or "\n" in said or len(said) > 800 or time.perf_counter() - begin > 5:
            wrong.append(f"{done}: {said} ({time.perf_counter() - begin:.1f} s)")
    assert not wrong, "\n".join([f"{len(wrong)} of {count}", *wrong])


def test_a_dozen_broken_checkpoints_are_told_in_a_line(speech_folder: Path, tmp_path: Path) -> None:
    check(speech_folder, tmp_path, seed=12, count=12)


def test_a_dozen_broken_ctc_checkpoints_are_told_in_a_line(
    ctc_folder: Path, tmp_path: Path
) -> None:
    check(ctc_folder, tmp_path, seed=12, count=12)


@pytest.mark.slow
def test_hundreds_of_broken_checkpoints_are_told_in_a_line(
    speech_folder: Path, tmp_path: Path
) -> None:
    check(speech_folder, tmp_path, seed=2026, count=400)


@pytest.mark.slow
def test_hundreds_of_broken_ctc_checkpoints_are_told_in_a_line(
    ctc_folder: Path, tmp_path: Path
) -> None:
    check(ctc_folder, tmp_path, seed=2027, count=200)
