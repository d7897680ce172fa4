"""Names that ``torch.compile`` leaves in a trace, and the time spent on calling compiled code.

In: the :class:`profiling.trace.trace_index.TraceIndex` of a trace. Out: :func:`compile_overhead`,
what guards and wrappers cost. Marks are known by name: their category changes with
``record_shapes``.
"""

from __future__ import annotations

import pandas as pd

from profiling.trace.trace_index import TraceIndex

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
    """Mark names that belong to the machinery of compiled calls rather than to the model."""
    return names.str.startswith(tuple(MARKS)) | names.str.endswith(COMPILING)


def fused_kernels_hidden(index: TraceIndex) -> bool:
    """Find out if compiled CPU code ran whose kernels the trace lacks: their time looks idle."""
    names = pd.Series(index.events["name"].cat.categories)
    on_device = index.events["cat"].isin(["kernel"]).any()
    compiled = names.str.startswith("## Call CompiledFxGraph").any()
    return bool(compiled and not on_device and not names.str.contains(FUSED, regex=False).any())


def compile_overhead(index: TraceIndex) -> pd.DataFrame:
    """Return time in guards, dispatch, bytecode and wrappers; columns :data:`OVERHEAD_COLUMNS`.

    Empty if nothing compiled was called.
    """
    stages = {str(name): _stage(str(name)) for name in index.events["name"].cat.categories}
    stage = pd.Series(index.call_names, dtype=object).map(stages)
    marked = stage.notna().to_numpy()
    frame = pd.DataFrame(
        {
            "phase": index.call_phases[marked],
            "stage": stage[marked].to_numpy(),
            "self_ms": index.calls["self_ns"].to_numpy()[marked] / 1e6,
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
