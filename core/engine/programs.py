"""The graphs of a model of any family, for what compiles them ahead of time.

In: a model. Out: a :class:`Program`: how its stages are made from a runner of graphs, and what
meets each of these graphs once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from core.engine import ctc_stage, graphs
from core.engine.graphs import Runner
from core.engine.warmup import warm_up
from core.errors import UserError
from core.model.granite_speech import GraniteSpeech
from core.model.granite_speech5_ctc import GraniteSpeech5CTC


@dataclass(frozen=True)
class Program:
    """A model's graphs.

    Attributes:
        module: where they are made; what it imports decides whether a package is stale.
        engine: name, runner -> stages.
        warm_up: stages -> nothing; with ``batches`` also what several clips at once meet.
    """

    module: str
    engine: Callable[[str, Runner], Any]
    warm_up: Callable[..., None]


def program_of(model: nn.Module) -> Program:
    """Return the graphs of ``model``.

    Raises:
        UserError: its family has none.
    """
    if isinstance(model, GraniteSpeech):
        return Program(
            graphs.__name__,
            lambda name, runner: graphs.graph_engine(name, model, runner),
            partial(warm_up, model=model),
        )
    if isinstance(model, GraniteSpeech5CTC):
        return Program(
            ctc_stage.__name__,
            lambda name, runner: ctc_stage.ctc_engine(name, model, runner),
            partial(ctc_stage.warm_up_ctc, model=model),
        )
    raise UserError(f"models of the kind {type(model).__name__} are not compiled ahead of time")
