"""Runs whose truth is known: :func:`made_run`, a ``run.json`` of simulated samples.

In: a seed, and what is slower than usual. Out: the run, timed on a machine that is a little faster
or slower on every day, and busier now and then.
"""

from typing import Any

import numpy as np

from profiling.measure.workload import ClipInfo, Workload

PHASE_MS = {"features": 4.0, "encoder": 40.0, "projector": 5.0, "prefill": 30.0, "decode": 100.0}
WORKLOAD = Workload(
    clip=ClipInfo("clip.wav", "clip.wav", "abc", 3.0),
    model="tiny",
    revision=None,
    engine="eager",
    lora=True,
    decoding="greedy",
    device="cpu",
    dtype="float32",
    max_new_tokens=128,
    ignore_eos=False,
    threads=2,
    seed=0,
)
MACHINE = {"cpu": "a fast one", "cores": 2, "device": "cpu", "threads": 2, "torch": "2.14.1"}


def made_run(
    seed: int,
    *,
    factors: dict[str, float] | None = None,
    day_factor: float = 1.0,
    blocks: int = 12,
    **machine: Any,
) -> dict[str, Any]:
    """A run of day number ``seed``; ``machine`` is added to what its machine is."""
    random = np.random.default_rng(seed)
    samples, again = (
        {
            name: ms
            * (factors or {}).get(name, 1.0)
            * day_factor
            * np.exp(random.normal(0, 0.02, blocks) + 0.3 * (random.random(blocks) < 0.05))
            for name, ms in {**PHASE_MS, "other": 2.0}.items()
        }
        for _ in range(2)
    )
    for table in (samples, again):
        table["end_to_end"] = sum(table.values())
    noise = [
        {"name": name, "ratio": float(np.median(again[name]) / np.median(samples[name]))}
        | {"low": 0.98, "high": 1.02, "n": blocks}
        for name in samples
    ]
    whole = float(np.median(samples["end_to_end"]))
    day = f"2026-11-{1 + seed:02d}" if seed < 30 else f"2026-12-{seed - 29:02d}"
    return {
        "schema_version": 1,
        "id": f"run-{seed:02d}",
        "created": f"{day}T10:00:00+00:00",
        "session": f"session-{seed}",
        "workload": WORKLOAD.to_json(),
        "machine": {**MACHINE, **machine},
        "phases": [
            {"name": name, "median_ms": float(np.median(samples[name]))} for name in PHASE_MS
        ],
        "end_to_end_ms": whole,
        "metrics": {"rtf": whole / 3000},
        "samples": {name: values.tolist() for name, values in samples.items()},
        "noise": noise,
        "memory": [
            {"phase": "encoder", "peak_bytes": 3e6},
            {"phase": "decode", "peak_bytes": 1e6},
        ],
    }
