"""Any number of runs -> one row each: what was measured, on what, how long, how it compares.

In: runs as their ``run.json`` states them. Out: rows as plain JSON types, in milliseconds and
bytes; what a run does not hold is None. A row's verdict is that against the first run, and only
where both did the same work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from profiling.measure.metrics import real_time_factor
from profiling.measure.timing import END_TO_END
from profiling.measure.workload import Workload
from profiling.statistics.encoder_decoder import encoder_and_decoder
from profiling.statistics.intervals import median_interval
from profiling.statistics.verdicts import Run, end_to_end_verdict

FIRST_RUN = "the first"
NOT_TIMED = "not timed by blocks"
DIFFERENT_WORK = "different work: {fields}"


def run_table(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return a row a run, in the order given; the first is the one the others are judged by."""
    return [{**run_row(run), **_judged(runs[0], run)} for run in runs]


def sweep_table(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return a row a run, by batch and length; each is judged by the first that did equal work."""
    works: dict[tuple[int, float, str], list[Run]] = {}
    for run in runs:
        work = run.get("workload") or {}
        clip = work.get("clip") or {}
        key = (batch_of(work), float(clip.get("seconds") or 0.0), str(clip.get("sha256")))
        works.setdefault(key, []).append(run)
    return [row for key in sorted(works) for row in run_table(works[key])]


def run_row(run: Run) -> dict[str, Any]:
    """Return a run's row without a verdict."""
    work, machine = run.get("workload") or {}, run.get("machine") or {}
    clip = work.get("clip") or {}
    blocks = (run.get("samples") or {}).get(END_TO_END) or ()
    low, high = median_interval(blocks)
    encoder, decoder = encoder_and_decoder(run, run)
    whole_ms = median(blocks) if blocks else run["end_to_end_ms"]
    return {
        "id": run.get("id"),
        "created": run.get("created"),
        "clip": clip.get("name"),
        "seconds": clip.get("seconds"),
        "model": work.get("model"),
        "engine": work.get("engine"),
        "lora": work.get("adapter") or {True: "on", False: "off", None: None}[work.get("lora")],
        "decoding": work.get("decoding"),
        "format": number_format(work),
        "batch": batch_of(work),
        "machine": machine_name(machine),
        "versions": versions(machine),
        "end_to_end_ms": whole_ms,
        "low_ms": low,
        "high_ms": high,
        "rtf": real_time_factor(whole_ms, (clip.get("seconds") or 0.0) * batch_of(work)),
        "encoder_ms": encoder["a_ms"],
        "encoder_bytes": encoder["a_bytes"],
        "decoder_ms": decoder["a_ms"],
        "decoder_bytes": decoder["a_bytes"],
    }


def batch_of(work: Mapping[str, Any]) -> int:
    """Return how often the recording stood in one pass."""
    return int(work.get("batch") or 1)


def number_format(work: Mapping[str, Any]) -> str | None:
    """Name the number format: the dtype, and what the decoder was quantised to."""
    parts = (work.get("dtype"), work.get("quantize"))
    return " ".join(str(part) for part in parts if part) or None


def machine_name(machine: Mapping[str, Any]) -> str | None:
    """Name what did the computing."""
    gpu, cpu, threads = (machine.get(key) for key in ("gpu", "cpu", "threads"))
    return gpu or (f"{cpu}, {threads} threads" if cpu and threads else cpu)


def versions(machine: Mapping[str, Any]) -> dict[str, str]:
    """Return the versions that were recorded: torch, python, cuda, commit of the checkout."""
    known = {key: machine.get(key) for key in ("torch", "python", "cuda", "commit")}
    return {key: str(value) for key, value in known.items() if value}


def workload_key(work: Mapping[str, Any]) -> str:
    """Return what makes two workloads, as JSON, the same: all but their recording's name."""
    clip = work.get("clip") or {}
    known = {key: work[key] for key in work if key not in ("clip", "label")}
    known["batch"] = batch_of(work)  # runs of earlier versions do not say
    return repr((clip.get("sha256"), sorted(known.items())))


def machine_class(machine: Mapping[str, Any]) -> str:
    """Return what makes two machines comparable: processor, cores, GPU and device."""
    return repr([machine.get(key) for key in ("cpu", "cores", "gpu", "device", "cpu_capability")])


def _judged(first: Run, run: Run) -> dict[str, Any]:
    if run is first:
        return {"ratio": None, "verdict": FIRST_RUN}
    try:
        works = [Workload.from_json(each["workload"]) for each in (first, run)]
        different = works[0].same_work(works[1])
        if different:
            return {"ratio": None, "verdict": DIFFERENT_WORK.format(fields=", ".join(different))}
        found = end_to_end_verdict(first, run)
    except ValueError:  # of another program or an earlier version
        return {"ratio": None, "verdict": NOT_TIMED}
    return {"ratio": found.ratio, "verdict": found.verdict}
