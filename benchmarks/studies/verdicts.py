"""Share of right verdicts on real runs: ``python -m benchmarks verdicts``.

In: how many sessions, a recording, a phase. Out: how often two arms that are the same were told
apart, and how often a slowdown put into the phase was found there, and in no other; JSON on stdout,
progress on stderr.

Every session interleaves four arms over one recording: a baseline, its A/A arm, the same engine
once more, and an engine whose phase is made 10 % longer by waiting. Blocks and judgement are those
of ``python -m profiling run``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

import core
from benchmarks.clips import EXAMPLES
from core import phases
from core.engine.stages import Engine
from core.lab import Lab
from core.transcription.options import ENGINES
from profiling.measure.timed_pass import blocks_that_fit
from profiling.measure.timing import Arm, Sample, interleave, samples_by_phase, time_once, warm_up
from profiling.measure.workload import ClipInfo, Workload
from profiling.runs.session import noise_rows
from profiling.statistics.compare import Comparison, compare

SLOWER_BY = 0.10
RIGHT_AT_LEAST, FOUND_AT_LEAST = 0.95, 0.9
# Phase -> the stage of the engine that is all of it, but for a little Python.
STAGES = {
    phases.ENCODER: "encode",
    phases.PROJECTOR: "project",
    phases.PREFILL: "prefill",
    phases.DECODE: "decode",
}
Blocks = Sequence[tuple[Sample, Sample]]


def slowed(engine: Engine, phase: str, extra_s: float) -> Engine:
    """Wait ``extra_s`` seconds after each call of the phase's stage; the others stay the same."""
    stage = getattr(engine, STAGES[phase])

    def longer(*arguments: Any) -> Any:
        result = stage(*arguments)
        until = time.perf_counter() + extra_s
        while time.perf_counter() < until:
            pass
        return result

    stages: dict[str, Any] = {STAGES[phase]: longer}
    return replace(engine, **stages)


@contextmanager
def using(lab: Lab, engine: Engine) -> Any:
    """Let ``lab`` answer with ``engine`` inside."""
    whole = lab.engine
    lab.engine = lambda name: engine  # type: ignore[method-assign]
    try:
        yield
    finally:
        lab.engine = whole  # type: ignore[method-assign]


def session(
    lab: Lab, work: Workload, recording: bytes, blocks: int | None, phase: str
) -> dict[str, Comparison]:
    """Measure one session.

    Args:
        lab: the model.
        work: what each run does.
        recording: the file's bytes.
        blocks: None for as many as fit.
        phase: the one that is slowed.

    Returns:
        Comparisons "same" and "slower", each against the baseline.
    """

    def plain() -> Sample:
        return time_once(lab, work, recording)

    ready = warm_up(plain)
    extra_ms = SLOWER_BY * median(_call_ms(sample, phase) for sample in ready[-3:])
    slow = slowed(lab.engine(work.engine), phase, extra_ms / 1000)

    def slower() -> Sample:
        with using(lab, slow):
            return plain()

    # As many blocks as a run of two engines would have: baseline, A/A arm, the other engine.
    blocks = blocks or blocks_that_fit([ready[-1].end_to_end_ms] * 3)
    arms: list[Arm[Sample]] = [Arm(name, plain) for name in ("baseline", "again", "same")]
    found = interleave([*arms, Arm("slower", slower)], blocks)
    noise = noise_rows(found["baseline"], found["again"])
    first = _run("baseline", found["baseline"]) | {"noise": noise}
    return {name: compare(first, _run(name, found[name])) for name in ("same", "slower")}


def _call_ms(sample: Sample, phase: str) -> float:
    """Read what one call of the phase's stage took."""
    return median(sample.step_ms) if phase == phases.DECODE else sample.phases_ms[phase]


def _run(name: str, blocks: Blocks) -> dict[str, Any]:
    return {"id": name, "session": "one", "samples": samples_by_phase(blocks)}


def count(sessions: Sequence[Mapping[str, Comparison]], phase: str) -> dict[str, Any]:
    """Count how often each verdict was right, and which phases were blamed wrongly."""
    same = [one["same"] for one in sessions]
    slower = [{row.name: row for row in one["slower"].phases} for one in sessions]
    found = [rows[phase] for rows in slower]
    blamed = Counter(
        row.name for rows in slower for row in rows.values() if row.shown and row.name != phase
    )
    return {
        "sessions": len(sessions),
        "blocks": [one.num_blocks for one in same],
        "same: no difference shown end to end": sum(not one.end_to_end.shown for one in same),
        "same: phases told apart, of all": [
            sum(row.shown for one in same for row in one.phases),
            sum(row.ratio is not None for one in same for row in one.phases),
        ],
        f"{SLOWER_BY:.0%} slower {phase}: found there": sum(
            row.shown and (row.ratio or 0.0) > 1.0 for row in found
        ),
        f"{SLOWER_BY:.0%} slower {phase}: ratios": [round(row.ratio or 0.0, 3) for row in found],
        f"{SLOWER_BY:.0%} slower {phase}: other phases blamed": dict(blamed),
    }


def run_sessions(parsed: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """Run all sessions on the bundled model and one recording."""
    work = Workload(
        clip=ClipInfo.of(parsed.clip),
        model="tiny",
        revision=None,
        engine=parsed.engine,
        lora=True,
        decoding="greedy",
        device="cpu",
        dtype="float32",
        max_new_tokens=parsed.tokens,
        ignore_eos=True,
        threads=parsed.threads,
        seed=0,
    )
    lab = core.load("tiny", dtype="float32")
    sessions = []
    for number in range(parsed.times):
        one = session(lab, work, parsed.clip.read_bytes(), parsed.blocks, parsed.phase)
        sessions.append(one)
        slow = next(row for row in one["slower"].phases if row.name == parsed.phase)
        say(
            f"session {number + 1} of {parsed.times}: same, {one['same'].end_to_end.verdict}; "
            f"{parsed.phase}, {slow.verdict}"
        )
    return count(sessions, parsed.phase)


def main(arguments: Sequence[str]) -> int:
    """Print the counts; 1 where too few verdicts were right."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks verdicts", description=__doc__)
    add = parser.add_argument
    add("--times", type=int, default=20, help="sessions")
    add("--blocks", type=int, help="of each (default: as python -m profiling run)")
    add("--tokens", type=int, default=24, help="that every run makes")
    add("--clip", type=Path, default=EXAMPLES / "digit_five.flac")
    add("--phase", choices=tuple(STAGES), default=phases.DECODE, help="that is made slower")
    add("--engine", choices=ENGINES, default="eager")
    add("--threads", type=int, default=torch.get_num_threads())
    parsed = parser.parse_args(arguments)
    found = run_sessions(parsed, lambda text: print(text, file=sys.stderr, flush=True))
    print(json.dumps(found, indent=1))
    right = found["same: no difference shown end to end"] / found["sessions"]
    seen = found[f"{SLOWER_BY:.0%} slower {parsed.phase}: found there"] / found["sessions"]
    return 0 if right >= RIGHT_AT_LEAST and seen >= FOUND_AT_LEAST else 1
