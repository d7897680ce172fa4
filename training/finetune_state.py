"""What a fine-tuning run keeps on disk so that it can go on: whole files or none.

In: weights, optimiser and counters of a step. Out: ``training/state.pt`` in the run's folder. A
file is written beside its place, flushed to the disk and then moved: a killed process or a full
disk leaves the last whole one. What chance decides is drawn from seed and step, so no generator's
state is kept.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

STATE = Path("training") / "state.pt"
LOG = Path("training") / "log.jsonl"


class SaveError(ValueError):
    """A file cannot be written; what was there before is still there."""


@dataclass(frozen=True)
class Progress:
    """Where a run stands. best: the lowest dev score so far; bad: checks since then."""

    step: int
    best: float | None
    bad: int
    before: dict[str, float]
    last: dict[str, float]


@dataclass(frozen=True)
class State:
    """All that ``--resume`` needs. settings: what must not change between runs."""

    progress: Progress
    settings: dict[str, Any]
    weights: dict[str, Tensor]
    optimiser: dict[str, Any]


def write_whole(file: Path, data: bytes | memoryview) -> None:
    """Write a file whole, or leave what was there.

    Raises:
        SaveError: no space, no permission.
    """
    new = file.with_name(f".{file.name}.new")
    try:
        with new.open("wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        new.replace(file)
    except OSError as error:
        with contextlib.suppress(OSError):
            new.unlink()
        raise SaveError(
            f"{file} could not be written ({error.strerror}); what was saved before is whole: "
            "make room, then start again with --resume"
        ) from error


def save_state(folder: Path, state: State) -> None:
    """Keep ``state`` in the run's folder.

    Raises:
        SaveError: it cannot be written.
    """
    content = {
        "progress": asdict(state.progress),
        "settings": state.settings,
        "weights": {name: value.detach().cpu() for name, value in state.weights.items()},
        "optimiser": state.optimiser,
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    (folder / STATE).parent.mkdir(parents=True, exist_ok=True)
    write_whole(folder / STATE, buffer.getbuffer())


def load_state(folder: Path, settings: Mapping[str, Any]) -> State | None:
    """The state a run in ``folder`` left, None where there is none.

    Raises:
        ValueError: it belongs to a run with other settings, or cannot be read.
    """
    file = folder / STATE
    if not file.exists():
        return None
    try:
        raw = torch.load(file, weights_only=True, map_location="cpu")
        state = State(
            Progress(**raw["progress"]), raw["settings"], raw["weights"], raw["optimiser"]
        )
    except Exception as error:  # a damaged file raises anything
        raise ValueError(
            f"{file} cannot be read ({type(error).__name__}); delete it to begin anew"
        ) from error
    for key, value in settings.items():
        was = state.settings.get(key)
        if was != value:
            raise ValueError(
                f"the run in {folder} was started with {key} {was}, now it is {value}; give the "
                "same, or another folder"
            )
    return state


def log_line(folder: Path, line: Mapping[str, Any]) -> None:
    """Append one line to the run's log; a full disk is no reason to lose the run."""
    with contextlib.suppress(OSError), (folder / LOG).open("a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")
