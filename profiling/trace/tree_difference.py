"""Two traces -> where they differ: their trees of calls laid on each other, from the phases down.

In: the index of each trace. Out: a row a path. Calls meet by their path from the phase down; those
that only wrap others are left out, so eager and compiled code meet at their kernels.
"""

from __future__ import annotations

import pandas as pd

from profiling.trace.breakdown import operator_paths
from profiling.trace.trace_index import TraceIndex

# Compiled code, and operators that only choose another: eager code has these, graphs have not.
WRAPPERS = (
    *("## Call CompiledFxGraph", "Torch-Compiled Region", "TorchDynamo Cache Lookup"),
    *("aten::linear", "aten::matmul", "aten::scaled_dot_product_attention", "aten::conv1d"),
    "aten::convolution",
)
DEEPEST = 8
DIFFERENCE_COLUMNS = {
    "path": "object",  # names from the phase down, joined by " > "
    "phase": "object",
    "depth": "int64",  # 0: a phase
    "a_ms": "float64",  # with what is inside; 0 where only the other trace has the path
    "b_ms": "float64",
    "difference_ms": "float64",  # b - a
    "only_in": "object",  # "A", "B", or "" for both
}


def tree_difference(a: TraceIndex, b: TraceIndex) -> pd.DataFrame:
    """Return the paths of both traces; columns :data:`DIFFERENCE_COLUMNS`.

    Phases come first, then what is inside them; in both the largest difference leads.

    Args:
        a: the baseline's.
        b: the other's.
    """
    sides = [_by_path(index) for index in (a, b)]
    rows = []
    for path in dict.fromkeys((*sides[0], *sides[1])):
        here, there = (side.get(path) for side in sides)
        one, two = here or 0.0, there or 0.0
        only = "B" if here is None else "A" if there is None else ""
        rows.append((" > ".join(path), path[0], len(path) - 1, one, two, two - one, only))
    rows.sort(key=lambda row: (row[2] > 0, -abs(row[5])))
    return pd.DataFrame(rows, columns=list(DIFFERENCE_COLUMNS)).astype(DIFFERENCE_COLUMNS)


def _by_path(index: TraceIndex) -> dict[tuple[str, ...], float]:
    """Path -> milliseconds, those inside included; calls that only wrap others are left out."""
    tree = operator_paths(index, max_depth=DEEPEST, least_share=0)
    paths: dict[int, tuple[str, ...]] = {-1: ()}
    found: dict[tuple[str, ...], float] = {}
    for row in tree.itertuples():
        above = paths[row.parent_id]
        if above and row.label.startswith(WRAPPERS):
            paths[row.id] = above  # its time is in what encloses it already
            continue
        paths[row.id] = path = (*above, row.label)
        found[path] = found.get(path, 0.0) + row.total
    return found
