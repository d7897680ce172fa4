"""Whether verdicts are right on real runs: ``python -m benchmarks.verdicts``.

In: how many sessions. Out: how often two arms that are the same were told apart, and how often a
slowdown put into one phase was found there, and in no other; JSON on stdout, progress on stderr.

Every session interleaves four arms over one recording: a baseline, its A/A arm, the same engine
once more, and an engine whose decode steps are made 10 % longer by waiting. Judged by
``profiling.compare``, as a run of ``python -m profiling`` is.
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
from core import phases
from core.engine import Engine
from core.lab import Lab
from profiling.compare import Comparison, compare
from profiling.session import noise_rows
from profiling.timing import Arm, Sample, interleave, samples_by_phase, time_once, warm_up
from profiling.workload import Clip, Workload

SLOWED = phases.DECODE
SLOWER_BY = 0.10
RIGHT_AT_LEAST = 0.95
Blocks = Sequence[tuple[Sample, Sample]]


def slowed(engine: Engine, extra_s: float) -> Engine:
    """The same stages, each decode step followed by ``extra_s`` seconds of waiting."""

    def decode(*arguments: Any) -> torch.Tensor:
        logits = engine.decode(*arguments)
        until = time.perf_counter() + extra_s
        while time.perf_counter() < until:
            pass
        return logits

    return replace(engine, decode=decode)


@contextmanager
def using(lab: Lab, engine: Engine) -> Any:
    """``lab`` answers with ``engine`` inside."""
    whole = lab.engine
    lab.engine = lambda name: engine  # type: ignore[method-assign]
    try:
        yield
    finally:
        lab.engine = whole  # type: ignore[method-assign]


def session(lab: Lab, work: Workload, recording: bytes, blocks: int) -> dict[str, Comparison]:
    """One session's comparisons: "same" and "slower", each against the baseline."""

    def plain() -> Sample:
        return time_once(lab, work, recording)

    steps = [step for sample in warm_up(plain)[-3:] for step in sample.step_ms]
    slow = slowed(lab.engine(work.engine), SLOWER_BY * median(steps) / 1000)

    def slower() -> Sample:
        with using(lab, slow):
            return plain()

    arms: list[Arm[Sample]] = [Arm(name, plain) for name in ("baseline", "again", "same")]
    found = interleave([*arms, Arm("slower", slower)], blocks)
    noise = noise_rows(found["baseline"], found["again"])
    first = _run("baseline", found["baseline"]) | {"noise": noise}
    return {name: compare(first, _run(name, found[name])) for name in ("same", "slower")}


def _run(name: str, blocks: Blocks) -> dict[str, Any]:
    return {"id": name, "session": "one", "samples": samples_by_phase(blocks)}


def count(sessions: Sequence[Mapping[str, Comparison]]) -> dict[str, Any]:
    """How often each verdict was right, and which phases were blamed wrongly."""
    same = [one["same"] for one in sessions]
    slower = [{row.name: row for row in one["slower"].phases} for one in sessions]
    found = [rows[SLOWED] for rows in slower]
    blamed = Counter(
        row.name for rows in slower for row in rows.values() if row.shown and row.name != SLOWED
    )
    return {
        "sessions": len(sessions),
        "same: no difference shown end to end": sum(not one.end_to_end.shown for one in same),
        "same: phases told apart, of all": [
            sum(row.shown for one in same for row in one.phases),
            sum(row.ratio is not None for one in same for row in one.phases),
        ],
        f"{SLOWER_BY:.0%} slower {SLOWED}: found there": sum(
            row.shown and (row.ratio or 0.0) > 1.0 for row in found
        ),
        f"{SLOWER_BY:.0%} slower {SLOWED}: ratios": [round(row.ratio or 0.0, 3) for row in found],
        f"{SLOWER_BY:.0%} slower {SLOWED}: other phases blamed": dict(blamed),
    }


def run_sessions(
    times: int, blocks: int, tokens: int, threads: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """All sessions on the bundled model and one bundled recording."""
    file = sorted(Path("assets/examples").glob("*.flac"))[0]
    work = Workload(
        clip=Clip.of(file),
        model="tiny",
        revision=None,
        engine="eager",
        lora=True,
        decoding="greedy",
        device="cpu",
        dtype="float32",
        max_new_tokens=tokens,
        ignore_eos=True,
        threads=threads,
        seed=0,
    )
    lab = core.load("tiny", dtype="float32")
    sessions = []
    for number in range(times):
        sessions.append(session(lab, work, file.read_bytes(), blocks))
        say(f"session {number + 1} of {times}: same, {sessions[-1]['same'].end_to_end.verdict}")
    return count(sessions)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the counts; 1 where too few verdicts were right."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.verdicts", description=__doc__)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--blocks", type=int, default=10)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parsed = parser.parse_args(arguments)
    found = run_sessions(
        parsed.times,
        parsed.blocks,
        parsed.tokens,
        parsed.threads,
        lambda text: print(text, file=sys.stderr, flush=True),
    )
    print(json.dumps(found, indent=1))
    right = found["same: no difference shown end to end"] / found["sessions"]
    return 0 if right >= RIGHT_AT_LEAST else 1


if __name__ == "__main__":
    raise SystemExit(main())
