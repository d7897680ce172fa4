"""Error of the predicted gain of compiling: ``python -m benchmarks prediction``.

In: shapes of model. Out: for each phase what compiling leaves of the shadow model's time, what the
phase took eager and compiled, and what was predicted for compiled; JSON on stdout, progress on
stderr. The shares that :mod:`profiling.roofline.roofline` rests on are the ones called ``left``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

import core
from benchmarks.clips import CLIP
from benchmarks.shapes import SHAPES, BenchmarkShape, folder_of
from core.engine.compiling import CompileLedger, compiled_engine
from core.errors import UserError
from core.lab import Lab
from profiling.measure.dispatch_overhead import dispatch_overhead_ms
from profiling.measure.timed_pass import blocks_that_fit
from profiling.measure.timing import Arm, Sample, interleave, samples_by_phase, time_once, warm_up
from profiling.measure.workload import ClipInfo, Workload, WorkloadChoices, workload_on
from profiling.roofline.machine_peaks import measure_ceilings
from profiling.roofline.roofline import LEFT_AFTER_COMPILING
from profiling.runs.run_json import roofline_part, timed_part

TOKENS = 32
ROOT = Path("build") / "bench"


def left_after_compiling(lab: Lab) -> dict[str, float]:
    """Measure the share of the shadow's eager time that its compiled stage takes, by phase."""
    eager = dispatch_overhead_ms(lab)
    compiled = dispatch_overhead_ms(
        lab, engine_of=lambda model: compiled_engine(model, CompileLedger())
    )
    return {name: compiled[name] / eager[name] for name in LEFT_AFTER_COMPILING}


def measured(lab: Lab, eager: Workload) -> dict[str, dict[str, float]]:
    """Measure eager, compiled and predicted milliseconds, by phase."""
    content = Path(eager.clip.path).read_bytes()
    works = {"eager": eager, "compiled": replace(eager, engine="compile")}

    def arm(name: str) -> Arm[Sample]:
        return Arm(name, lambda: time_once(lab, works[name], content))

    arms = [arm(name) for name in works]
    ready = [warm_up(one.run)[-1].end_to_end_ms for one in arms]
    blocks = interleave(arms, blocks_that_fit(ready))
    ceilings = measure_ceilings(lab.device, (eager.dtype,))
    found = roofline_part(lab, eager, timed_part(eager, blocks["eager"]), ceilings)
    assert found is not None
    gains = {row["name"]: row["expected_gain"] for row in found["rows"]}
    middles = {
        name: {phase: median(ms) for phase, ms in samples_by_phase(pairs).items()}
        for name, pairs in blocks.items()
    }
    rows = {phase: {name: middles[name][phase] for name in works} for phase in gains}
    return {phase: {**row, "predicted": row["eager"] / gains[phase]} for phase, row in rows.items()}


def predict(shape: BenchmarkShape, root: Path) -> dict[str, Any]:
    """Measure a shape: what compiling left of each phase, took, and was predicted to take."""
    lab = core.load(str(folder_of(shape, root)), dtype="float32")
    choices = WorkloadChoices(model=shape.name, max_new_tokens=TOKENS, ignore_eos=True)
    work = workload_on(lab, ClipInfo.of(CLIP), choices)
    left, phases = left_after_compiling(lab), measured(lab, work)
    return {
        phase: {
            "left": round(left[phase], 2),
            **{name: round(ms, 2) for name, ms in row.items()},
            "gain": round(row["eager"] / row["compiled"], 2),
            "gain_predicted": round(row["eager"] / row["predicted"], 2),
        }
        for phase, row in phases.items()
    }


def main(arguments: Sequence[str]) -> int:
    """Print what was found.

    Returns:
        The exit status.

    Raises:
        UserError: an unknown shape.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks prediction", description=__doc__)
    parser.add_argument("--shapes", default="tiny,small", help=f"some of {','.join(SHAPES)}")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--root", type=Path, default=ROOT, help="folder of the random checkpoints")
    parsed = parser.parse_args(arguments)
    names = parsed.shapes.split(",")
    if unknown := [name for name in names if name not in SHAPES]:
        raise UserError(f"--shapes has {unknown[0]!r}; expected some of {', '.join(SHAPES)}")
    torch.set_num_threads(parsed.threads)
    found = {}
    for name in names:
        found[name] = predict(SHAPES[name], parsed.root)
        print(name, found[name], file=sys.stderr, flush=True)
    print(json.dumps(found, indent=1))
    return 0
