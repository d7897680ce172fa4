"""The one stage of TurboCTC: eager, and as a graph for the compiler or a package.

In: a model. Out: :class:`CTCEngine`. The number of rows is a symbol in the graph, and one clip is
a case of its own (see ``core.engine.graphs``): two graphs serve every length.

Shapes: B clips, R feature rows, F features, T rows of the head, V word pieces.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from core.engine.graphs import Graph, Runner
from core.model.granite_speech5_ctc import GraniteSpeech5CTC

TYPICAL_ROWS = 200  # any size but one: it is a symbol in the graph

ForwardStage = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class CTCEngine:
    """The one stage: features [B, R, F], lengths [B] -> logits [B, T, V] and their lengths [B]."""

    name: str
    forward: ForwardStage


def ctc_engine(name: str, model: GraniteSpeech5CTC, runner: Runner | None = None) -> CTCEngine:
    """Make the stage of ``model``, eager or from a graph that ``runner`` executes."""

    def encode(features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        return tuple(model(features, lengths))

    if runner is None:
        return CTCEngine(name, encode)
    graph, run = Graph("encode", encode, ({0: "B", 1: "R"}, {0: "B"})), runner
    return CTCEngine(name, lambda features, lengths: tuple(run(graph, (features, lengths))))


@torch.inference_mode()
def warm_up_ctc(engine: CTCEngine, model: GraniteSpeech5CTC, *, batches: bool = False) -> None:
    """Run the stage for a single clip, and with ``batches`` for several at once."""
    like = model.encoder.input_linear.weight
    for clips in (1, 2) if batches else (1,):
        features = like.new_zeros(clips, TYPICAL_ROWS, model.config.input_dim)
        engine.forward(features, torch.tensor([TYPICAL_ROWS] * clips, device=like.device))
