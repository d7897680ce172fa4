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
