"""The state of a fine-tuning run on disk, from which it resumes: whole files or none.

In: weights, optimiser and counters of a step. Out: ``training/state.pt`` in the run's folder, whole
(:mod:`training.saving`). What chance decides is drawn from seed and step, so no generator's state
is kept.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from core.errors import UserError
from training.saving import read_state, write_state

STATE = Path("training") / "state.pt"
LOG = Path("training") / "log.jsonl"
AGAIN = "start again with --resume"


@dataclass(frozen=True)
class TrainingProgress:
    """Where a run stands. best: the lowest dev score so far; bad: checks since then."""

    step: int
    best: float | None
    bad: int
    before: dict[str, float]
    last: dict[str, float]


@dataclass(frozen=True)
class State:
    """All that ``--resume`` needs. settings: what must not change between runs."""

    progress: TrainingProgress
    settings: dict[str, Any]
    weights: dict[str, Tensor]
    optimiser: dict[str, Any]


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
    (folder / STATE).parent.mkdir(parents=True, exist_ok=True)
    write_state(folder / STATE, content, AGAIN)


def load_state(folder: Path, settings: Mapping[str, Any]) -> State | None:
    """Load the state that a run in ``folder`` left.

    Returns:
        None where there is none.

    Raises:
        UserError: it belongs to a run with other settings, or cannot be read.
    """
    file = folder / STATE
    if not file.exists():
        return None
    raw = read_state(file, ("progress", "settings", "weights", "optimiser"))
    progress = TrainingProgress(**raw["progress"])
    state = State(progress, raw["settings"], raw["weights"], raw["optimiser"])
    for key, value in settings.items():
        was = state.settings.get(key)
        if was != value:
            raise UserError(
                f"the run in {folder} was started with {key} {was}, now it is {value}; give the "
                "same, or another folder"
            )
    return state


def log_line(folder: Path, line: Mapping[str, Any]) -> None:
    """Append one line to the run's log; a full disk is no reason to lose the run."""
    with contextlib.suppress(OSError), (folder / LOG).open("a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")
