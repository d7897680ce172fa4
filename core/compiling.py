"""The stages compiled: the only file that calls ``torch.compile``.

In: a model. Out: an :class:`Engine` whose stages are whole graphs (``fullgraph=True``) with fixed
shapes. Lengths are padded to buckets, so a new clip length, prompt or LoRA state within a bucket
meets a graph that exists already; LoRA is a tensor argument, never a different graph.

Buckets: features in one, two, four, ... attention blocks; prompts and caches in powers of two from
64 up. The number of graphs therefore grows with the logarithm of the longest clip.
"""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from core.engine import ROW_TILE, Engine, decode_stage, encode_stage, prefill_stage, project_stage
from core.model import GraniteSpeech

logger = logging.getLogger(__name__)

SMALLEST_BUCKET = 64  # tokens; below this a graph of its own saves nothing
MOST_GRAPHS = 256  # of one stage: every pair of buckets and batch size has its own


@dataclass
class CompileLedger:
    """What compiling cost. seconds: stage -> seconds of the calls that had to compile."""

    seconds: dict[str, float] = field(default_factory=dict)
    graphs: dict[str, int] = field(default_factory=dict)


def power_of_two_bucket(length: int, smallest: int = SMALLEST_BUCKET) -> int:
    """The smallest ``smallest * 2**k`` that holds ``length``."""
    bucket = smallest
    while bucket < length:
        bucket *= 2
    return bucket


def compiled_engine(model: GraniteSpeech, ledger: CompileLedger) -> Engine:
    """The stages of ``model`` under ``torch.compile``; ``ledger`` collects what compiling cost.

    The first call in a bucket compiles it, which takes seconds; later calls reuse the graph.
    """
    context = model.config.encoder.context_size

    def build(name: str, stage: Callable[..., Any]) -> Callable[..., Any]:
        compiled = torch.compile(stage, fullgraph=True, dynamic=False, **_room_for_buckets())
        return _counted(name, compiled, ledger)

    return Engine(
        name="compile",
        encode=build("encoder", encode_stage(model)),
        project=build("projector", project_stage(model)),
        prefill=build("prefill", prefill_stage(model)),
        decode=build("decode", decode_stage(model)),
        frames_bucket=lambda frames: power_of_two_bucket(frames, context),
        prompt_bucket=power_of_two_bucket,
        cache_bucket=power_of_two_bucket,
        verify_bucket=lambda rows: rows if rows == 1 else power_of_two_bucket(rows, ROW_TILE),
        slots_in_use=lambda position, num_slots: num_slots,
    )


def _room_for_buckets() -> dict[str, Any]:
    """Dynamo refuses the ninth variant of a whole graph unless told; old torch has one setting."""
    if "recompile_limit" in inspect.signature(torch.compile).parameters:
        return {"recompile_limit": MOST_GRAPHS}
    torch._dynamo.config.recompile_limit = MOST_GRAPHS
    return {}


def _counted(name: str, compiled: Callable[..., Any], ledger: CompileLedger) -> Callable[..., Any]:
    """Record the seconds of every call that made new graphs."""

    def call(*args: Any) -> Any:
        before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        begin = time.perf_counter()
        result = compiled(*args)
        new = torch._dynamo.utils.counters["stats"]["unique_graphs"] - before
        if new:
            spent = time.perf_counter() - begin
            ledger.seconds[name] = ledger.seconds.get(name, 0.0) + spent
            ledger.graphs[name] = ledger.graphs.get(name, 0) + new
            logger.info("compiled %s in %.1f s", name, spent)
        return result

    return call
