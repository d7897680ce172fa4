"""Torch's metrics as a ledger: what is unknown stays unknown, and reasons are kept.

Run alone: ``python -m pytest tests/test_compile_ledger.py``.
"""

import torch
from torch._dynamo.utils import CompilationMetrics

from profiling.measure.compile_stats import Watch, entry_of, ledger_of


def metric(**changes: object) -> CompilationMetrics:
    fields = {
        "compile_id": "3/0",
        "co_name": "decode",
        "entire_frame_compile_time_s": 10.0,
        "backend_compile_time_s": 9.0,
        "inductor_compile_time_s": 7.0,
        "code_gen_time_s": 4.0,
        "guard_count": 400,
        "guard_latency_us": 300.0,
        "graph_op_count": 171,
        "num_graph_breaks": 0,
    }
    return CompilationMetrics(**{**fields, **changes})


def test_parts_of_the_seconds_add_up():
    entry = entry_of(metric())
    parts = (entry.trace_s, entry.autograd_s, entry.lower_s, entry.build_s)
    assert parts == (1.0, 2.0, 3.0, 4.0)
    assert sum(parts) == entry.seconds
    assert entry.stage == "decode"


def test_what_torch_does_not_say_is_unknown_not_zero():
    entry = entry_of(
        metric(
            inductor_compile_time_s=None,
            code_gen_time_s=None,
            num_graph_breaks=None,
            guard_latency_us=None,
        )
    )
    assert (entry.autograd_s, entry.lower_s, entry.build_s) == (None, None, None)
    assert (entry.graph_breaks, entry.guard_us) == (None, None)
    ledger = ledger_of([entry], {})
    assert ledger.seconds_by_step["build"] is None
    assert ledger.seconds_by_step["trace"] == 1.0
    assert ledger.guard_us is None


def test_a_ledger_adds_up_stages_guards_and_caches():
    entries = [
        entry_of(metric()),
        entry_of(metric(co_name="encode", compile_id="0/0")),
        entry_of(metric(compile_id="3/1", recompile_reason="3/0: size mismatch")),
    ]
    counters = {
        "stats": {"unique_graphs": 3},
        "inductor": {"fxgraph_cache_hit": 2, "fxgraph_cache_miss": 1},
        "graph_break": {"call to print": 1, "nothing": 0},
    }
    ledger = ledger_of(entries, counters)
    assert ledger.seconds_by_stage == {"decode": 20.0, "encoder": 10.0}
    assert (ledger.graphs, ledger.seconds, ledger.guards) == (3, 30.0, 1200)
    assert [entry.compile_id for entry in ledger.recompiles] == ["3/1"]
    assert ledger.breaks == {"call to print": 1}
    assert ledger.caches["kernels"] == {"hits": 2, "misses": 1, "bypassed": 0}
    assert ledger.to_json()["recompiles"][0]["recompile_reason"] == "3/0: size mismatch"


def test_a_watch_sees_only_what_came_after_it():
    def double(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    def half(x: torch.Tensor) -> torch.Tensor:
        return x / 2

    # The backend "eager" traces and guards but builds nothing.
    torch.compile(double, backend="eager", dynamic=False)(torch.ones(3))
    watch = Watch()
    assert watch.read().entries == ()
    compiled = torch.compile(half, backend="eager", dynamic=False)
    compiled(torch.ones(3))
    compiled(torch.ones(4))
    ledger = watch.read()
    assert [entry.stage for entry in ledger.entries] == ["half", "half"]
    assert ledger.graphs == 2
    assert "size mismatch" in ledger.recompiles[0].recompile_reason
    assert ledger.entries[0].guards > 0
    assert len(Watch(from_start=True).read().entries) >= 3


def test_graph_breaks_are_counted_with_their_reason():
    def breaks(x: torch.Tensor) -> torch.Tensor:
        torch._dynamo.graph_break()
        return x + 1

    watch = Watch()
    torch.compile(breaks, backend="eager")(torch.ones(2) * 3)
    assert sum(watch.read().breaks.values()) == 1
