"""Every broken file of a checkpoint or an adapter is one line, soon, and never a traceback.

Run alone: ``python -m pytest tests/test_broken_checkpoints.py``.
"""

import time
from pathlib import Path

import pytest

import core
from broken_checkpoints import broken, prepare
from core.errors import UserError


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


@pytest.mark.slow
def test_hundreds_of_broken_checkpoints_are_told_in_a_line(
    speech_folder: Path, tmp_path: Path
) -> None:
    check(speech_folder, tmp_path, seed=2026, count=400)
