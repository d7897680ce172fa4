"""Compile cost and reasons: graphs, breaks, recompiles with reasons, seconds by stage, caches.

In: torch's own counters and compilation metrics, read before and after the work. Out: a
:class:`Ledger`. What torch did not say is None, never 0: on a cache hit, for one, there are no
seconds of code generation.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch._dynamo.utils as dynamo

from core.engine.compiling import STAGE_PHASES
from profiling.measure.compile_reasons import GraphBreak, breaks_of, failed_guard
from profiling.trace.source_places import place_in, without_folders

CACHES = {  # counter group -> (what it caches, hits, misses, bypassed)
    "inductor": ("kernels", "fxgraph_cache_hit", "fxgraph_cache_miss", "fxgraph_cache_bypass"),
    "aot_autograd": (
        "graphs",
        "autograd_cache_hit",
        "autograd_cache_miss",
        "autograd_cache_bypass",
    ),
}


@dataclass(frozen=True)
class Entry:
    """One compilation. The four parts of its seconds do not overlap; unknown ones are None.

    trace: Dynamo reads the Python; autograd: AOTAutograd traces and decomposes; lower: Inductor
    plans and fuses; build: code is generated and built, or fetched. guards: conditions checked
    before every later call. recompile_reason: the guard that failed, None for a first compilation;
    source: the line it came from, else where the compiled function begins.
    """

    compile_id: str
    stage: str
    seconds: float | None
    trace_s: float | None
    autograd_s: float | None
    lower_s: float | None
    build_s: float | None
    guards: int | None
    guard_us: float | None
    operators: int | None
    graph_breaks: int | None
    recompile_reason: str | None
    failed: str | None
    source: str | None = None


@dataclass(frozen=True)
class Ledger:
    """Everything compiled between two moments.

    seconds: of all compilations; seconds_by_stage: model stage -> seconds; seconds_by_step: as the
    parts of :class:`Entry`. breaks: reason -> count; graph_breaks: the same with their places.
    recompiles: those with a reason. caches: what is cached -> {hits, misses, bypassed}. complete:
    False if torch had forgotten the earliest.
    """

    graphs: int
    breaks: dict[str, int]
    recompiles: tuple[Entry, ...]
    seconds: float
    seconds_by_stage: dict[str, float]
    seconds_by_step: dict[str, float | None]
    guards: int | None
    guard_us: float | None
    caches: dict[str, dict[str, int]]
    entries: tuple[Entry, ...]
    complete: bool
    graph_breaks: tuple[GraphBreak, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)


class Watch:
    """Notes where torch's counters stand when made; :meth:`read` gives what came since.

    With ``from_start`` it gives everything since the process began: for engines that were compiled
    before anybody watched.
    """

    def __init__(self, *, from_start: bool = False) -> None:
        self._since_us = 0.0 if from_start else time.time() * 1e6
        self._before = {} if from_start else _counters()
        self._breaks_before = 0 if from_start else len(dynamo.graph_break_reasons)

    def read(self) -> Ledger:
        """Return the ledger of what was compiled since."""
        kept = dynamo.get_compilation_metrics()
        metrics = [m for m in kept if (m.start_time_us or 0) >= self._since_us]
        forgotten = len(kept) >= dynamo.DEFAULT_COMPILATION_METRICS_LIMIT
        complete = not (forgotten and len(metrics) == len(kept))
        ledger = ledger_of([entry_of(metric) for metric in metrics], self._changes(), complete)
        breaks = breaks_of(dynamo.graph_break_reasons[self._breaks_before :])
        return replace(ledger, graph_breaks=breaks)

    def _changes(self) -> dict[str, dict[str, int]]:
        return {
            group: {
                name: number - self._before.get(group, {}).get(name, 0)
                for name, number in names.items()
            }
            for group, names in _counters().items()
        }


def _counters() -> dict[str, dict[str, int]]:
    return {group: dict(names) for group, names in dynamo.counters.items()}


def entry_of(metric: Any) -> Entry:
    """Return one of torch's ``CompilationMetrics`` as an entry."""
    whole, backend = metric.entire_frame_compile_time_s, metric.backend_compile_time_s
    inductor, build = metric.inductor_compile_time_s, metric.code_gen_time_s
    name = metric.co_name or "unknown"
    guard, source = failed_guard(metric.recompile_reason)
    return Entry(
        compile_id=metric.compile_id or "",
        stage=STAGE_PHASES.get(name, name),
        seconds=whole,
        trace_s=_between(whole, backend),
        autograd_s=_between(backend, inductor),
        lower_s=_between(inductor, build),
        build_s=build,
        guards=metric.guard_count,
        guard_us=metric.guard_latency_us or None,
        operators=metric.graph_op_count,
        graph_breaks=metric.num_graph_breaks,
        recompile_reason=guard,
        failed=None if metric.fail_reason is None else without_folders(metric.fail_reason),
        source=source or place_in(metric.co_filename, metric.co_firstlineno, metric.co_name),
    )


def _between(outer: float | None, inner: float | None) -> float | None:
    return None if outer is None or inner is None else max(0.0, outer - inner)


def ledger_of(
    entries: Sequence[Entry], counters: Mapping[str, Mapping[str, int]], complete: bool = True
) -> Ledger:
    """Add up entries and changes of torch's counters."""
    by_stage: dict[str, float] = {}
    for entry in entries:
        by_stage[entry.stage] = by_stage.get(entry.stage, 0.0) + (entry.seconds or 0.0)
    by_step = {
        step: _known_sum([getattr(entry, f"{step}_s") for entry in entries])
        for step in ("trace", "autograd", "lower", "build")
    }
    guards = _known_sum([entry.guards for entry in entries])
    return Ledger(
        graphs=counters.get("stats", {}).get("unique_graphs", 0),
        breaks={without_folders(why): n for why, n in counters.get("graph_break", {}).items() if n},
        recompiles=tuple(entry for entry in entries if entry.recompile_reason),
        seconds=sum(by_stage.values()),
        seconds_by_stage=by_stage,
        seconds_by_step=by_step,
        guards=None if guards is None else int(guards),
        guard_us=_known_sum([entry.guard_us for entry in entries]),
        caches={
            what: {
                "hits": counters.get(group, {}).get(hit, 0),
                "misses": counters.get(group, {}).get(miss, 0),
                "bypassed": counters.get(group, {}).get(bypass, 0),
            }
            for group, (what, hit, miss, bypass) in CACHES.items()
        },
        entries=tuple(entries),
        complete=complete,
    )


def _known_sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
