"""What the figures' tests draw: a run, another, their comparison, a ledger, a roofline, a trace."""

from __future__ import annotations

from pathlib import Path

from core.text.transcript import PhaseTime
from profiling.trace.events import read_trace
from profiling.trace.trace_index import TraceIndex

PHASE_TIMES = [PhaseTime("decode", 30.0), PhaseTime("encoder", 60.0), PhaseTime("decode", 5.0)]
TINY = Path(__file__).parent / "data" / "tiny_trace.json"
RUN = {
    "id": "a",
    "phases": [
        {"name": "encoder", "n": 40, "median_ms": 6.0, "p90_ms": 7.0, "iqr_ms": 0.5, "share": 0.3},
        {"name": "decode", "n": 40, "median_ms": 12.0, "p90_ms": 30.0, "iqr_ms": 1.0, "share": 0.6},
    ],
    "end_to_end_ms": 20.0,
    "other_ms": 1.5,
}
COMPARISON = {
    "a": "a",
    "b": "b",
    "phases": [
        {
            "name": "encoder",
            "a_ms": 6.0,
            "b_ms": None,
            "ratio": None,
            "verdict": "not in both runs",
        },
        {
            "name": "decode",
            "a_ms": 12.0,
            "b_ms": 4.0,
            "ratio": 0.33,
            "low": 0.3,
            "high": 0.4,
            "verdict": "3.0x faster, 2.5 to 3.3",
        },
    ],
    "end_to_end": {
        "a_ms": 20.0,
        "b_ms": 9.0,
        "ratio": 0.45,
        "low": 0.4,
        "high": 0.5,
        "verdict": "2.2x faster, 2.0 to 2.5",
    },
    "noise_floor": {"decode": [0.97, 1.03]},
    "tokens_identical": True,
    "compile_seconds": 11.0,
    "break_even_clips": 1000,
    "break_even": "compiling took 11.0 s: pays off after 1000 clips like this one",
}
LEDGER = {
    "entries": [
        {
            "compile_id": "0/0",
            "stage": "encoder",
            "seconds": 10.0,
            "trace_s": 2.0,
            "autograd_s": 1.0,
            "lower_s": 3.0,
            "build_s": 4.0,
            "recompile_reason": None,
        },
        {
            "compile_id": "0/1",
            "stage": "encoder",
            "seconds": 5.0,
            "trace_s": None,
            "autograd_s": None,
            "lower_s": None,
            "build_s": None,
            "recompile_reason": "size mismatch",
        },
    ]
}
ROOFLINE = [
    {
        "name": "decode",
        "flops": 2e9,
        "num_bytes": 4e9,
        "flops_per_s": 1e9,
        "share": 0.4,
        "bound": "memory",
    }
]
CEILINGS = {
    "machine": "this",
    "paper": False,
    "copy_bytes_per_s": 1e10,
    "dtypes": [{"dtype": "float32", "flops_per_s": 1e11, "gemv_bytes_per_s": 2e10}],
}


def index() -> TraceIndex:
    return read_trace(TINY).index
