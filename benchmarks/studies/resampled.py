"""Verdicts on sessions cut out of recorded runs: ``python -m benchmarks resampled``.

In: seconds of recording one engine, which does equal work again and again. Out: how often a phase
made 10 % longer was found and how often equal arms were told apart, for several ways to reduce a
block and to set the noise floor; JSON on stdout, progress on stderr.

A session is a stretch of the recording that begins anywhere: its runs are dealt to three arms in
the order in which :func:`profiling.measure.timing.interleave` would have run them, so drift,
interruptions and all else that equal runs really do are in it. Hundreds of sessions take a minute
to record, where measuring as many takes hours (:mod:`benchmarks.studies.verdicts` measures a few).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import core
from benchmarks.clips import EXAMPLES
from benchmarks.studies.verdicts import SLOWER_BY
from core import phases
from core.errors import UserError
from profiling.measure.plan import workload_on
from profiling.measure.quiet_process import settled
from profiling.measure.timing import END_TO_END, OTHER, time_once, warm_up
from profiling.measure.workload import ClipInfo
from profiling.statistics.intervals import Ratio, is_shown, noise_floor, paired_ratio

ARMS = 3  # baseline, the same again, and another
Times = NDArray[np.float64]
Runs = Mapping[str, Times]  # phase -> milliseconds of each run, as they came
# What a block of two runs is worth, and what equal work is taken to look like.
BLOCKS: dict[str, Callable[[Sequence[float]], float]] = {"middle": median, "quicker": min}
FLOORS: dict[str, Callable[[Ratio], tuple[float, float]]] = {
    "interval": lambda again: (min(again.low, 1.0), max(again.high, 1.0)),
    "ratio": noise_floor,
}


def record(clip: Path, tokens: int, engine: str, seconds: float) -> Runs:
    """Run the bundled model on a clip again and again.

    Args:
        clip: the recording.
        tokens: that every run makes; 0 for as many as its text has.
        engine: "eager" or "compile".
        seconds: until when.

    Returns:
        Milliseconds of each run, by phase.
    """
    lab = core.load("tiny", dtype="float32")
    exact: dict[str, Any] = {"max_new_tokens": tokens, "ignore_eos": True} if tokens else {}
    work = workload_on(lab, ClipInfo.of(clip), model="tiny", engine=engine, **exact)
    content, found = clip.read_bytes(), list[dict[str, float]]()
    warm_up(lambda: time_once(lab, work, content))
    end = time.perf_counter() + seconds
    with settled():
        while time.perf_counter() < end:
            run = time_once(lab, work, content)
            rows = {**run.phases_ms, OTHER: run.other_ms, END_TO_END: run.end_to_end_ms}
            found.append(rows)
    return {name: np.array([run[name] for run in found]) for name in found[0]}


def dealt(runs: Times, start: int, blocks: int) -> Times:
    """Deal the runs from ``start`` on to [arm, block, 2], forwards and backwards in a block."""
    found, place = np.empty((ARMS, blocks, 2)), start
    for block in range(blocks):
        order = [(arm + block) % ARMS for arm in range(ARMS)]
        for half, arms in enumerate((order, order[::-1])):
            for arm in arms:
                found[arm, block, half] = runs[place]
                place += 1
    return found


def judge(runs: Runs, phase: str, blocks: int, sessions: int, seed: int = 0) -> dict[str, Any]:
    """Judge many sessions cut out of the runs, by each way to reduce a block and set the floor.

    Args:
        runs: by phase.
        phase: the one that is made slower.
        blocks: of a session.
        sessions: how many.
        seed: of where they begin.

    Returns:
        By way, shares of sessions: ``found`` the slower phase, and told equal arms ``apart``.

    Raises:
        UserError: too few runs were recorded for a session.
    """
    needed, there = 2 * ARMS * blocks, len(runs[END_TO_END])
    if there <= needed:
        raise UserError(f"{there} runs were recorded; {blocks} blocks need more than {needed}")
    starts = np.random.default_rng(seed).integers(0, there - needed, sessions)
    extra = SLOWER_BY * float(np.median(runs[phase]))
    counts = {(b, f): [0, 0, 0] for b in BLOCKS for f in FLOORS}
    for start in starts:
        part, whole = (dealt(runs[name], start, blocks) for name in (phase, END_TO_END))
        for way, worth in BLOCKS.items():
            again, equal = (_ratio(part[0], part[arm], worth) for arm in (1, 2))
            slower = _ratio(part[0], part[2] + extra, worth)
            whole_again, whole_equal = (_ratio(whole[0], whole[arm], worth) for arm in (1, 2))
            for floor, of in FLOORS.items():
                tally = counts[way, floor]
                tally[0] += is_shown(slower, of(again)) and slower.ratio > 1
                tally[1] += is_shown(equal, of(again))
                tally[2] += is_shown(whole_equal, of(whole_again))
    names = ("found", f"{phase} told apart", "end to end told apart")
    return {
        f"{way} of two, floor: {floor}": {
            name: round(number / sessions, 3) for name, number in zip(names, tally, strict=True)
        }
        for (way, floor), tally in counts.items()
    }


def _ratio(a: Times, b: Times, worth: Callable[[Sequence[float]], float]) -> Ratio:
    """Compute b's time over a's, both [block, 2]."""
    first, second = ([worth(pair) for pair in arm.tolist()] for arm in (a, b))
    return paired_ratio(first, second, resamples=1000)


def main(arguments: Sequence[str]) -> int:
    """Print the shares for each number of blocks.

    Returns:
        The exit status.

    Raises:
        UserError: ``--blocks`` holds no numbers, or too few runs were recorded.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks resampled", description=__doc__)
    add = parser.add_argument
    add("--seconds", type=float, default=100.0, help="of recording")
    add("--sessions", type=int, default=200, help="cut out of it")
    add("--blocks", default="10,20,46", help="of a session, several to compare")
    add("--clip", type=Path, default=EXAMPLES / "digit_five.flac")
    add("--tokens", type=int, default=24, help="that every run makes; 0: to the text's end")
    add("--phase", default=phases.DECODE, help="that is made slower")
    add("--engine", default="eager")
    add("--threads", type=int, default=torch.get_num_threads())
    parsed = parser.parse_args(arguments)
    if not all(part.isdecimal() for part in parsed.blocks.split(",")):
        raise UserError(f"--blocks is {parsed.blocks!r}; expected whole numbers, as 10,20")
    torch.set_num_threads(parsed.threads)
    runs = record(parsed.clip, parsed.tokens, parsed.engine, parsed.seconds)
    print(f"{len(runs[END_TO_END])} runs recorded", file=sys.stderr, flush=True)
    found = {
        f"{blocks} blocks": judge(runs, parsed.phase, int(blocks), parsed.sessions)
        for blocks in parsed.blocks.split(",")
    }
    print(json.dumps(found, indent=1))
    return 0
