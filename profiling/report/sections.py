"""The sections of a report: each writes one part of a run onto the page.

In: a :class:`Page`, a run as its JSON states it, perhaps its trace. Out: nothing; the page grows. A
section whose numbers the run lacks says so or is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
import plotly.graph_objects as go

from core.units import format_bytes, format_ms
from profiling.figures.comparison import memory_comparison, memory_held
from profiling.figures.memory_curves import memory_bars, memory_over_time
from profiling.figures.memory_curves import memory_of_both as curves_of_both
from profiling.figures.phase_bars import phase_rows, run_bars
from profiling.figures.run_details import (
    acceptance_bars,
    roofline_plot,
    token_latency,
)
from profiling.figures.trace_views import (
    difference_bars,
    operator_icicle,
    timeline,
    top_operators,
)
from profiling.measure.metrics import DEFINITIONS
from profiling.report.columns import (
    DIFFERENCE_COLUMNS,
    GAP_COLUMNS,
    MEMORY_COLUMNS,
    OPERATOR_COLUMNS,
    OVERHEAD_COLUMNS,
    PHASE_COLUMNS,
    ROOFLINE_COLUMNS,
    TRACE_COLUMNS,
)
from profiling.report.page import Page
from profiling.report.sentences import capital
from profiling.trace.breakdown import operator_paths, operator_table, phase_table
from profiling.trace.compile_marks import compile_overhead
from profiling.trace.events import Trace
from profiling.trace.launches import launch_gaps
from profiling.trace.memory_events import allocated_by_call, memory_curve
from profiling.trace.tree_difference import tree_difference

Run = Mapping[str, Any]

TOP_ROWS = 15
HIDDEN_KERNELS = (
    "Compiled kernels are not in this trace, so their time looks idle: compile with "
    "torch._inductor.config.cpp.enable_kernel_profile to see them."
)
COMPILED_CALLS = "Guards, dispatch and wrappers are paid on every call; the graph is the work."
HEADLINE = (
    "Median time, and the most memory above what was there when the phase began. The decoder is "
    "every phase after the projector: prefill, drafts, and each step."
)
MEMORY_PER_PHASE = (
    "The most each phase held above what was there when it began. On a CPU the profiler sees "
    "what is allocated while it runs: activations and caches, not the weights."
)
MEMORY_OVER_TIME = (
    "Allocated above what was there at the start, in a profiled run of each, which is slower than "
    "a timed one and ends after the first steps of the decoder."
)
MEMORY_HELD = (
    "Weights were there before the run. The KV cache is that of one request. Activations are "
    "whatever else was allocated at the highest moment. The whole process counts Python, libraries "
    "and compiled code as well, of both runs, at its highest during each."
)
DIFFERENCE = (
    "Calls meet by their path from the phase down, without those that only wrap others, so that "
    "eager and compiled code meet. Both times include the profiler's overhead."
)
FLAME_TIME = "As wide as the time it took. Click to enter a call, click the top to leave it."
FLAME_MEMORY = "As wide as what was allocated inside, whether or not it was freed since."
TRACE_LEAD = (
    "Recorded once with the profiler on: it says where time goes, not how much. Each lane shows "
    "what ran when; drag over it to look closer."
)


def without_path(run: Run) -> dict[str, Any]:
    """Return the run without its recording's path: reports are passed on, folders are private."""
    work = {**(run.get("workload") or {})}
    work["clip"] = {key: value for key, value in (work.get("clip") or {}).items() if key != "path"}
    return {**run, "workload": work}


def label_of(run: Run) -> str:
    """Name a run: its recording, and the workload's label."""
    work = run.get("workload") or {}
    parts = ((work.get("clip") or {}).get("name"), work.get("label") or work.get("engine"))
    return ", ".join(str(part) for part in parts if part) or str(run.get("id", "a run"))


def metrics(run: Run) -> list[tuple[str, str, str]]:
    """Return tiles of the metrics that the run has, each with its definition."""
    found = {**(run.get("metrics") or {}), "end_to_end_ms": run["end_to_end_ms"]}
    found["profiler_tax"] = run.get("profiler_tax")
    found["inter_token_ms"] = (found.get("inter_token_ms") or {}).get("median")
    tiles = []
    for key, (title, unit, meaning) in DEFINITIONS.items():
        value = found.get(key)
        if value is not None:
            tiles.append((title, _with_unit(float(value), unit), meaning))
    return tiles


def _with_unit(value: float, unit: str) -> str:
    if unit == "ms":
        return format_ms(value)
    if unit == "bytes":
        return format_bytes(value)
    digits = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return digits + {"x": "x", "1/s": " /s"}.get(unit, "")


def transcript(page: Page, run: Run) -> None:
    """Append the text."""
    if run.get("transcript_text"):
        page.add("quote", run["transcript_text"])


def warnings(page: Page, found: Iterable[str]) -> None:
    """Append what makes the numbers doubtful."""
    for warning in found:
        page.add("paragraph", warning, "warning")


def phases(page: Page, run: Run) -> None:
    """Time per phase: medians with whiskers, and the table, in the order of the pipeline."""
    page.heading("Time per phase", DEFINITIONS["phase_ms"][2])
    page.figure(run_bars(run), "Median time per phase")
    page.note("Bars are medians; whiskers reach the 90th percentile.")
    page.table(phase_rows(run), PHASE_COLUMNS)


def token_times(page: Page, run: Run) -> None:
    """Draw the time of each new token, with the run's own inter-token latency."""
    waits = (run.get("metrics") or {}).get("inter_token_ms")
    page.heading("Time per token", DEFINITIONS["inter_token_ms"][2])
    page.figure(token_latency(run.get("tokens") or (), waits), "Time of each new token")


def drafts(page: Page, runs: Mapping[str, Run]) -> None:
    """Draw what became of drafted tokens, for runs that drafted. runs: by the name of each."""
    found = {at: run["draft"] for at, run in runs.items() if run.get("draft")}
    if found:
        page.heading("Drafts", DEFINITIONS["acceptance"][2])
        page.figure(acceptance_bars(found), "Drafted tokens kept")


def headline(comparison: Mapping[str, Any], labels: Sequence[str]) -> list[tuple[str, str, str]]:
    """Return tiles of the encoder and of the decoder, time and memory of A beside those of B."""
    tiles = []
    for row in comparison.get("headline") or ():
        for arm, label in zip("ab", labels, strict=True):
            time, size = row[f"{arm}_ms"], row[f"{arm}_bytes"]
            said = [format_ms(time)] if time is not None else []
            said += [format_bytes(size)] if size is not None else []
            if said:
                value = ", ".join(one.replace(" ", "\u00a0") for one in said)
                tiles.append((f"{capital(row['name'])}, {label}", value, HEADLINE))
    return tiles


def memory_of_both(
    page: Page, comparison: Mapping[str, Any], runs: Sequence[Run], labels: tuple[str, str]
) -> None:
    """Draw the memory of two runs: by phase, over time, and what it held.

    Args:
        page: grows.
        comparison: of the runs, as JSON.
        runs: A and B.
        labels: what to call them.
    """
    page.heading("Memory per phase", MEMORY_PER_PHASE)
    page.figure(memory_comparison(comparison, labels), "Peak memory per phase of A and B")
    page.table(comparison.get("memory") or (), MEMORY_COLUMNS)
    curves = [run.get("memory_curve") for run in runs]
    if any(curves):
        page.heading("Memory over time", MEMORY_OVER_TIME, level=3)
        page.figure(curves_of_both(curves, labels), "Allocated memory of A and B over time")
        page.heading("What memory held", MEMORY_HELD, level=3)
        page.figure(memory_held(comparison, labels), "Weights, KV cache, activations, process")


def memory(page: Page, run: Run, trace: Trace | None) -> None:
    """Draw peaks per phase, and the curve of the trace."""
    page.heading("Memory", MEMORY_PER_PHASE)
    page.figure(memory_bars(run.get("memory") or ()), "Peak memory per phase")
    if trace is not None:
        curve = memory_curve(trace.index)
        page.figure(memory_over_time(curve, trace.index), "Allocated memory over time")


def traced(page: Page, run: Run, trace: Trace) -> None:
    """Append timeline, tree of calls, operators, gaps, and the overhead of compiled calls."""
    over_time(page, run, trace)
    operators(page, trace)
    idle(page, trace)


def difference(page: Page, a: Trace, b: Trace) -> None:
    """Append where two traces differ, by phase and by the calls inside."""
    page.heading("Where the traces differ", DIFFERENCE)
    table = tree_difference(a.index, b.index)
    page.figure(difference_bars(table), "Calls whose time differs most")
    page.table(table.head(TOP_ROWS).to_dict("records"), DIFFERENCE_COLUMNS)


def over_time(page: Page, run: Run, trace: Trace) -> None:
    """Draw what ran when, above the trace's own table of phases."""
    page.heading("Inside the phases", TRACE_LEAD)
    if run.get("profiler_tax"):
        page.note(_tax_said(run["profiler_tax"]))
    for absent in trace.lacks:
        page.note(f"The trace has {absent}.")
    page.figure(timeline(trace.index), "Phases and calls over time")
    page.table(phase_table(trace.index).to_dict("records"), TRACE_COLUMNS)


def _tax_said(tax: float) -> str:
    """Say what profiling cost; within a tenth runs differ as much among themselves."""
    if tax < 1.1:
        return f"The profiler's overhead is within noise ({tax:.2f}x the time)."
    return f"The profiler made this run {tax:.2f}x slower; the timings above are without it."


class FlameGraph(NamedTuple):
    """A tree of calls as it is drawn. tree: of :func:`operator_paths`; write: a width in words."""

    lead: str
    title: str
    tree: pd.DataFrame
    write: Callable[[float], str]

    def figure(self, find: str = "") -> go.Figure:
        """Draw it; calls whose name does not contain ``find`` lose their colour."""
        return operator_icicle(self.tree, write=self.write, find=find)


def flame_graphs(trace: Trace) -> list[FlameGraph]:
    """Return the tree of calls by time, and by memory where that was recorded."""
    index = trace.index.with_modules
    times = operator_paths(index)
    found = [FlameGraph(FLAME_TIME, "Tree of calls by time", times, format_ms)]
    allocated = allocated_by_call(index)
    if allocated.any():
        tree = operator_paths(index, of_calls=allocated)
        found.append(FlameGraph(FLAME_MEMORY, "Tree of calls by memory", tree, format_bytes))
    return found


def operators(page: Page, trace: Trace) -> list[FlameGraph]:
    """Draw the trees of calls, and tabulate the most expensive operators.

    Returns:
        The trees, in the order drawn.
    """
    flames = flame_graphs(trace)
    for flame in flames:
        page.heading(flame.title, flame.lead, level=3)
        page.figure(flame.figure(), flame.title)
    page.heading("Most expensive operators", level=3)
    table = operator_table(trace.index)
    page.figure(top_operators(table), "Operators by self time")
    page.table(table.head(TOP_ROWS).to_dict("records"), OPERATOR_COLUMNS)
    return flames


def idle(page: Page, trace: Trace) -> None:
    """Time in which nothing ran, and what calling compiled code cost."""
    gaps = launch_gaps(trace.index)
    if len(gaps):
        page.heading(
            "Gaps", "Time inside a phase in which nothing ran: what compiling can cure.", level=3
        )
        if not gaps["trusted"].all():
            warnings(page, [HIDDEN_KERNELS])
        page.table(gaps.to_dict("records"), GAP_COLUMNS)
    overhead = compile_overhead(trace.index)
    if len(overhead):
        page.heading("Compiled-call overhead", COMPILED_CALLS, level=3)
        page.table(overhead.to_dict("records"), OVERHEAD_COLUMNS)


def roofline(page: Page, run: Run) -> None:
    """Draw how far each phase is from what the machine can do."""
    found = run["roofline"]
    source = "a data sheet" if found["ceilings"].get("paper") else "measurements on this machine"
    page.heading(
        "Against the machine's limits",
        f"Operations and bytes are counted from the model's dimensions; ceilings are {source}.",
    )
    dtype = (run.get("workload") or {}).get("dtype", "float32")
    page.figure(roofline_plot(found["rows"], found["ceilings"], dtype), "Roofline")
    page.table(found["rows"], ROOFLINE_COLUMNS)
    if found.get("expected_gain"):
        page.note(f"Compiling is expected to make the whole {found['expected_gain']:.2f}x faster.")


def circumstances(page: Page, runs: Mapping[str, Run]) -> None:
    """Append what was measured, on what, and what metrics mean. runs: by the name of each."""
    _side_by_side(page, "What was measured", {at: _work_of(run) for at, run in runs.items()})
    _side_by_side(page, "Machine", {at: _machine_of(run) for at, run in runs.items()})
    page.heading("What the metrics mean")
    page.add("definitions", [(title, meaning) for title, _, meaning in DEFINITIONS.values()])


def _work_of(run: Run) -> dict[str, Any]:
    work = {**(run.get("workload") or {}), "label": None}
    clip = work.pop("clip", None) or {}
    return {**{f"recording_{key}": value for key, value in clip.items()}, **work}


def _machine_of(run: Run) -> dict[str, Any]:
    machine = {**(run.get("machine") or {})}
    sizes = [key for key in machine if key.endswith("_bytes") and machine[key]]
    return machine | {key.removesuffix("_bytes"): format_bytes(machine.pop(key)) for key in sizes}


def _side_by_side(page: Page, title: str, facts: Mapping[str, dict[str, Any]]) -> None:
    """Append a column for each run; one for all where they do not differ."""
    first, *others = facts.values()
    same = all(other == first for other in others)
    page.heading(f"{title} ({' and '.join(facts)})" if others and same else title)
    page.facts({"": first} if same else facts)
