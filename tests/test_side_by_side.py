"""Graphs built by several processes at once."""

import os
from pathlib import Path

import pytest
import torch

from core.engine import side_by_side
from core.engine.side_by_side import BUILDER_BYTES, build_all, most_builders
from core.errors import UserError

CPU = torch.device("cpu")
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes to fork")


@forks
def test_graphs_are_built_in_other_processes_that_see_what_is_in_memory_here(tmp_path: Path):
    weights = torch.arange(4.0)

    def build(name: str) -> None:
        (tmp_path / name).write_text(f"{os.getpid()} {weights.sum().item()}")

    found = dict(build_all(["a", "b", "c"], build, builders=2))
    assert sorted(found) == ["a", "b", "c"]
    assert all(spent >= 0 for spent in found.values())
    said = [(tmp_path / name).read_text().split() for name in found]
    assert str(os.getpid()) not in {process for process, _ in said}
    assert {total for _, total in said} == {"6.0"}


def test_one_builder_is_this_process():
    met: list[str] = []
    assert [name for name, _ in build_all(["a", "b"], met.append, builders=1)] == ["a", "b"]
    assert met == ["a", "b"]


@forks
def test_an_error_of_a_build_ends_all_builders():
    def build(name: str) -> None:
        if name == "b":
            raise UserError("no room")
        torch.zeros(1)

    with pytest.raises(UserError, match="no room"):
        list(build_all(["a", "b", "c"], build, builders=2))


@forks
def test_what_a_builder_that_died_left_is_built_here(tmp_path: Path):
    here = os.getpid()

    def build(name: str) -> None:
        if os.getpid() != here:
            os._exit(9)
        (tmp_path / name).touch()

    found = dict(build_all(["a", "b", "c"], build, builders=2))
    assert sorted(found) == ["a", "b", "c"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "b", "c"]


def test_builders_are_as_many_as_processors_graphs_and_memory_allow(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(side_by_side.sys, "platform", "linux")
    monkeypatch.setattr(side_by_side.os, "sched_getaffinity", lambda _: set(range(4)))
    monkeypatch.setattr(side_by_side, "available_bytes", lambda: 100 * BUILDER_BYTES)
    assert most_builders(CPU, 6) == 4
    assert most_builders(CPU, 2) == 2
    assert most_builders(torch.device("cuda"), 6) == 1
    monkeypatch.setattr(side_by_side, "available_bytes", lambda: 2.5 * BUILDER_BYTES)
    assert most_builders(CPU, 6) == 2
    monkeypatch.setattr(side_by_side, "available_bytes", lambda: BUILDER_BYTES // 2)
    assert most_builders(CPU, 6) == 1
    monkeypatch.setattr(side_by_side.sys, "platform", "darwin")
    assert most_builders(CPU, 6) == 1
