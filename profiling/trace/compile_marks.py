"""Names that ``torch.compile`` leaves in a trace, and the time spent on calling compiled code.

In: the events of :mod:`profiling.trace.events`. Out: :func:`compile_overhead`, the price of guards
and wrappers. Marks are known by name: their category changes with ``record_shapes``.
"""

from __future__ import annotations

import pandas as pd

from profiling.trace.call_tree import nest, phase_at, phase_segments, phase_spans

# Beginning of the name -> what the time is spent on.
MARKS = {
    "TorchDynamo Cache Lookup": "guards",
    "Torch-Compiled Region": "dispatch",
    "Pregraph bytecode": "bytecode",
    "AOTDispatcher": "runtime wrapper",
    "## Call CompiledFxGraph": "compiled graph",
}
COMPILING = "(dynamo_timed)"  # the end of the names seen while a graph is being compiled
FUSED = "cpp_fused"  # in the names of Inductor's CPU kernels

OVERHEAD_COLUMNS = {
    "phase": "object",
    "stage": "object",
    "num_calls": "int64",
    "self_ms": "float64",  # time in the stage itself, not in what it encloses
    "us_per_call": "float64",
    "is_overhead": "bool",  # False for the compiled graph: that is the work
}


def is_mark(names: pd.Series) -> pd.Series:
    """Whether a name belongs to the machinery of compiled calls rather than to the model."""
    return names.str.startswith(tuple(MARKS)) | names.str.endswith(COMPILING)


def fused_kernels_hidden(events: pd.DataFrame) -> bool:
    """Whether compiled CPU code ran whose kernels are not in the trace: their time looks idle."""
    names = pd.Series(events["name"].cat.categories)
    on_device = events["cat"].isin(["kernel"]).any()
    compiled = names.str.startswith("## Call CompiledFxGraph").any()
    return bool(compiled and not on_device and not names.str.contains(FUSED, regex=False).any())


def compile_overhead(events: pd.DataFrame, *, calls: pd.DataFrame | None = None) -> pd.DataFrame:
    """Time in guards, dispatch, bytecode and wrappers per phase; columns :data:`OVERHEAD_COLUMNS`.

    Empty if nothing compiled was called.
    """
    calls = nest(events) if calls is None else calls
    stages = {str(name): _stage(str(name)) for name in events["name"].cat.categories}
    stage = events["name"].iloc[calls["row"]].astype(object).map(stages).reset_index(drop=True)
    marked = stage.notna()
    found = calls[marked]
    segments = phase_segments(phase_spans(events))
    frame = pd.DataFrame(
        {
            "phase": phase_at(segments, found["start_ns"].to_numpy()),
            "stage": stage[marked].to_numpy(),
            "self_ms": found["self_ns"].to_numpy() / 1e6,
        }
    )
    groups = frame.groupby(["phase", "stage"], sort=False)["self_ms"]
    table = groups.agg(num_calls="size", self_ms="sum").reset_index()
    table["us_per_call"] = 1000 * table["self_ms"] / table["num_calls"]
    table["is_overhead"] = table["stage"] != "compiled graph"
    return table[list(OVERHEAD_COLUMNS)].astype(OVERHEAD_COLUMNS)


def _stage(name: str) -> str | None:
    if name.endswith(COMPILING):
        return "compiling"
    return next((stage for begin, stage in MARKS.items() if name.startswith(begin)), None)
