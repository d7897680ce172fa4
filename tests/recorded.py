"""A recorded run as its file states it, and a trace beside it.

In: nothing. Out: :data:`RUN`, :data:`TRACE`, :func:`store_with`, and :func:`dropped`, a file that a
visitor brings.
"""

import gzip
from pathlib import Path
from typing import Any

from profiling.runs.store import RunStore

TRACE = Path(__file__).parent / "data" / "tiny_trace.json"
RUN: dict[str, Any] = {
    "schema_version": 1,
    "id": "20261122-eager",
    "created": "2026-11-22T10:00:00+00:00",
    "workload": {
        "label": "eager, LoRA on, greedy",
        "model": "tiny",
        "clip": {"name": "clip.wav", "path": "clip.wav", "seconds": 3.0},
        "engine": "eager",
        "dtype": "float32",
        "device": "cpu",
    },
    "machine": {"cpu": "a fast one", "memory_bytes": 16e9},
    "phases": [
        {"name": "encoder", "n": 4, "median_ms": 6.0, "p90_ms": 7.0, "iqr_ms": 0.5, "share": 0.3},
        {"name": "decode", "n": 4, "median_ms": 12.0, "p90_ms": 30.0, "iqr_ms": 1.0, "share": 0.6},
    ],
    "end_to_end_ms": 20.0,
    "other_ms": 2.0,
    "tokens": [{"index": number, "ms": 2.0} for number in range(1, 8)],
    "memory": [{"phase": "encoder", "peak_bytes": 3_000_000}],
    "metrics": {"rtf": 0.0067},
    "compile": None,
    "transcript_text": "three one eight",
    "warnings": [],
}


def store_with(folder: Path) -> RunStore:
    """A store that holds the run with its trace."""
    store = RunStore(folder)
    store.write(RUN, trace=gzip.compress(TRACE.read_bytes()))
    return store


def dropped(folder: Path, name: str, content: bytes) -> Path:
    """A file of a visitor's."""
    (folder / name).write_bytes(content)
    return folder / name


def trace_of_gpu() -> dict[str, Any]:
    """A small trace of a GPU: launches and kernels, a copy, pairs, names, compiled code."""
    events: list[dict[str, Any]] = [
        {"ph": "M", "name": "process_name", "pid": 0, "args": {"name": "/device:GPU:0"}},
        {"ph": "B", "name": "encoder", "cat": "user_annotation", "ts": 1, "pid": 7, "tid": 7},
        {"ph": "E", "name": "encoder", "ts": 400, "pid": 7, "tid": 7},
        {"ph": "C", "name": "counter", "ts": 5, "pid": 7, "args": {"bytes": 3}},
        {"ph": "s", "name": "ac2g", "id": 1, "ts": 12, "pid": 7, "tid": 7},
    ]
    host = {"ph": "X", "pid": 7, "tid": 7}
    for number, name in enumerate(("aten::mm", "## Call CompiledFxGraph abc ##", "aten::copy_")):
        at = 10 + 100 * number
        ids = {"External id": number, "correlation": number}
        shapes = {"External id": number, "Input Dims": [[2, 3], []]}
        kind = "gpu_memcpy" if name == "aten::copy_" else "kernel"
        events += [
            {**host, "name": name, "cat": "cpu_op", "ts": at, "dur": 80, "args": shapes},
            {**host, "name": "cudaLaunchKernel", "cat": "cuda_runtime"}
            | {"ts": at + 10, "dur": 5, "args": ids},
            {"ph": "X", "name": f"k{number}", "cat": kind, "pid": 0, "tid": number % 2}
            | {"ts": at + 30, "dur": 40, "args": {**ids, "stream": number % 2, "device": 0}},
            {"ph": "i", "name": "[memory]", "cat": "cpu_instant_event", "pid": 7, "tid": 7}
            | {"ts": at + 20, "args": {"Bytes": 512, "Device Type": 1, "Device Id": 0}},
        ]
    return {"traceEvents": events, "deviceProperties": [{"id": 0, "name": "H200"}]}
