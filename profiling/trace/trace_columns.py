"""Events as the JSON holds them -> the columns of a frame, in microseconds from the first event.

In: the complete and instant events of a Chrome trace. Out: a frame with :data:`EVENT_COLUMNS`; NaN
where an event does not say. Built column by column, each event looked at once: traces are large.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

# Column -> (dtype, the keys in an event's args it is read from). NaN: the event does not say.
ARGUMENTS: dict[str, tuple[str, ...]] = {
    "external_id": ("External id", "external id"),  # the operator that caused a kernel
    "correlation": ("correlation",),  # the launch that caused a kernel
    "stream": ("stream",),
    "device_type": ("Device Type",),  # of memory events: 0 CPU, 1 CUDA
    "device_index": ("Device Id", "device"),
    "bytes": ("Bytes", "bytes"),  # of memory events: freed if negative
    "total_allocated_bytes": ("Total Allocated",),
    "total_reserved_bytes": ("Total Reserved",),
}
EVENT_COLUMNS: dict[str, str] = {
    "ts_us": "float64",  # from the first event
    "dur_us": "float64",  # NaN for instants
    "name": "category",
    "cat": "category",  # "" where there is none
    "pid": "category",  # as text: some are names
    "tid": "category",
    **dict.fromkeys(ARGUMENTS, "float64"),
    "input_dims": "category",  # as text, "[[4, 64], []]"; NaN without record_shapes
}

DEVICE_CATS = ("kernel", "gpu_memcpy", "gpu_memset")
LAUNCH_CATS = ("cuda_runtime", "cuda_driver", "hip_runtime", "xpu_runtime")
MEMORY_EVENT = "[memory]"
LARGEST = 1e18  # an id or a number of bytes beyond 63 bits is none
CATEGORIES = {  # of PyTorch 1.8 to 1.12
    "Operator": "cpu_op",
    "Runtime": "cuda_runtime",
    "Kernel": "kernel",
    "Memcpy": "gpu_memcpy",
    "Memset": "gpu_memset",
}

Event = dict[str, Any]


def frame_of(raw: list[Event]) -> pd.DataFrame:
    """Return :data:`EVENT_COLUMNS` sorted by time; equal times keep the file's order."""
    rows = [
        (get("ts"), get("dur") if get("ph") == "X" else None, get("name", ""), get("cat", ""),
         get("pid", ""), get("tid", ""), get("args"))
        for get in (event.get for event in raw)
    ]  # fmt: skip
    times, lasts, names, cats, pids, tids, args = (
        list(column) for column in zip(*rows, strict=True)
    )
    ts, dur = numbers(times), numbers(lasts)
    cat = _category([CATEGORIES.get(str(name), name) for name in cats])
    columns: dict[str, Any] = {
        "ts_us": np.round(ts - ts.min(), 3),
        "dur_us": dur,
        "name": _category(names),
        "cat": cat,
        "pid": _category(pids),
        "tid": _category(tids),
        **_arguments(args, cat.codes),
    }
    frame = pd.DataFrame(columns, columns=list(EVENT_COLUMNS))
    return frame.sort_values("ts_us", kind="stable", ignore_index=True)


def _category(values: list[Any]) -> pd.Categorical:
    """Store each different text once; 7 and "7" are the same thread."""
    try:
        texts = {value: _text(value) for value in dict.fromkeys(values)}
    except TypeError:  # a list where a name should be
        return _category([str(value) for value in values])
    places = {text: place for place, text in enumerate(dict.fromkeys(texts.values()))}
    codes = {value: places[text] for value, text in texts.items()}
    return pd.Categorical.from_codes([codes[value] for value in values], categories=list(places))


def _text(value: Any) -> str:
    """Write a value; half of a pair of surrogates, which no encoding has, becomes "?"."""
    return str(value).encode("utf-8", "replace").decode()


def _arguments(held: list[Any], groups: np.ndarray) -> dict[str, Any]:
    """Read the columns from ``args``, category by category: each uses few of the keys."""
    found = {column: np.full(len(held), np.nan) for column in ARGUMENTS}
    # As text: a hundred thousand nested lists would slow down every later garbage collection.
    dims: list[str | None] = [None] * len(held)
    order = np.argsort(groups, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
        args = [value if isinstance(value := held[row], dict) else {} for row in rows.tolist()]
        present = set().union(*args)
        for column, keys in ARGUMENTS.items():
            for key in [key for key in keys if key in present]:
                values = numbers([value.get(key) for value in args])
                values[np.abs(values) > LARGEST] = np.nan
                known = found[column][rows]
                found[column][rows] = np.where(np.isnan(known), values, known)
        if "Input Dims" in present:
            for row, value in zip(rows.tolist(), args, strict=True):
                shapes = value.get("Input Dims")
                dims[row] = None if shapes is None else str(shapes)
    return {**found, "input_dims": pd.Categorical(dims)}


def numbers(values: list[Any]) -> np.ndarray:
    """Return float64, NaN where there is none; text that reads as a number is one."""
    try:
        found = np.array(values, dtype=np.float64)  # None becomes NaN
    except (TypeError, ValueError, OverflowError):
        found = np.empty((0, 0))
    if found.ndim != 1:  # lists where numbers should be make rows and columns
        return np.array([number(value) for value in values], dtype=np.float64)
    return found


def number(value: Any) -> float:
    """Return ``value`` as a float, NaN if it is none."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return float("nan")
