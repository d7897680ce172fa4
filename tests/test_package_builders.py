"""Builders of packages: they take over what another one finished, and wait for each other.

Run alone: ``python -m pytest tests/test_package_builders.py``.
"""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import Any

import pytest

from core.engine import aot_build
from core.engine.aot_build import build_package
from core.engine.aot_load import package_name
from core.engine.fingerprint import fingerprint
from tiny_models import random_model

NAMES = ("encode-B1", "encode_blocks-B1", "project", "prefill-B1", "decode-B1", "verify-B1")


@pytest.fixture(autouse=True)
def _built_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aot_build, "most_builders", lambda *_: 1)


def test_graphs_of_a_builder_that_was_stopped_are_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, made = random_model(), []

    def compile_one(*arguments: Any) -> None:
        if len(made) == 2:
            raise RuntimeError("killed")
        made.append(arguments[-1].stem)
        arguments[-1].write_text("")

    monkeypatch.setattr(aot_build, "_compile", compile_one)
    monkeypatch.setattr(aot_build, "_seconds_to_ready", lambda *_: 0.25)
    with pytest.raises(RuntimeError, match="killed"):
        build_package(model, name="toy", into=tmp_path)
    first = list(made)
    made.clear()
    assert not list(tmp_path.glob("toy-*"))
    monkeypatch.setattr(aot_build, "_compile", lambda *a: made.append(a[-1].stem))
    seen: list[aot_build.BuildProgress] = []
    folder = build_package(model, name="toy", into=tmp_path, report=seen.append)
    assert len(first) == 2
    assert sorted(first + made) == sorted(NAMES)
    assert list(seen[0].seconds) == first
    assert (folder / f"{first[0]}.pt2").is_file()
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_dir()] == [folder.name]
    made.clear()
    build_package(model, name="toy", into=tmp_path, batches=True)
    assert "encode" in made
    assert not set(made) & set(NAMES)


def test_a_second_builder_waits_for_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = random_model()
    target = tmp_path / package_name("toy", fingerprint(model).structure)
    held: list[bool] = []

    def compile_one(*_: Any) -> None:
        with target.with_name(f".{target.name}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held.append(False)
            except BlockingIOError:
                held.append(True)

    monkeypatch.setattr(aot_build, "_compile", compile_one)
    monkeypatch.setattr(aot_build, "_seconds_to_ready", lambda *_: 0.25)
    build_package(model, name="toy", into=tmp_path)
    assert held == [True] * len(NAMES)
