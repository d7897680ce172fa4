"""Beyond one clip at a time: batches, many lengths, packages, recordings, long files.

In: a :class:`SessionPlan` and the shapes' work. Out: plain JSON types, one entry per question; a
question whose shape is not in the plan is left out.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from benchmarks.clips import CLIP, EXAMPLES, recordings_in
from benchmarks.numbers import spent, summary
from benchmarks.process import WorkerProcess, run_command
from benchmarks.session import Say, SessionPlan, Work, work_of
from benchmarks.systems import COMPILE, DRAFTS, EAGER, ON_RECORDINGS, Answer
from core.audio.decode import load_audio
from core.audio.waveform import SAMPLE_RATE
from profiling.measure.timing import Arm, interleave
from profiling.statistics.intervals import paired_ratio
from profiling.statistics.text_agreement import first_difference

ROWS = 16
BATCH_S = 10.0
SHORTEST_S, STEPS = 0.8, 30


def measure_extras(plan: SessionPlan, failures: list[str], say: Say) -> dict[str, Any]:
    """Answer the questions that the plan's shapes allow, by name."""
    works = [work_of(plan, shape) for shape in plan.shapes]
    trained = next((work for work in works if work.shape.trained), None)
    small = next((w for w in works if w.shape.together and not w.shape.trained), None)
    found: dict[str, Any] = {}
    if small is not None:
        for name in (n for n in (EAGER, COMPILE) if n in plan.systems):
            with spent(failures):
                found.setdefault("batch", {})[name] = batch(plan, small, name, say)
    if trained is not None:
        if COMPILE in plan.systems:
            with spent(failures):
                found["lengths"] = many_lengths(plan, trained, say)
            with spent(failures):
                found["package"] = from_package(plan, trained, say)
        with spent(failures):
            found["recordings"] = real_recordings(plan, trained, say)
        with spent(failures):
            found["long"] = long_files(plan, trained, say)
    return found


def batch(plan: SessionPlan, work: Work, system: str, say: Say) -> dict[str, Any]:
    """Time sixteen clips at once against the same clips one by one.

    Args:
        plan: the session's.
        work: the shape's.
        system: which one.
        say: takes progress.

    Returns:
        Milliseconds of both, their ratio, and where tokens differ.
    """
    seconds = min(BATCH_S, max(work.seconds))
    say(f"{work.shape.name}: {ROWS} clips at once and one by one, {system}")
    request: dict[str, Any] = {"seconds": seconds, "rows": ROWS, "num_tokens": work.num_tokens}
    repeats = max(2, work.repeats // 2)
    with WorkerProcess(system, work.folder, plan.threads) as worker:
        arms = [Arm(do, partial(worker.ask, do, **request)) for do in ("batch", "one_by_one")]
        for arm in arms:
            arm.run()  # compiles, warms up
        blocks = interleave(arms, repeats)
    together = summary(blocks["batch"], work.num_tokens)
    alone = summary(blocks["one_by_one"], work.num_tokens)
    return {
        "shape": work.shape.name,
        "rows": ROWS,
        "seconds": seconds,
        "batch_ms": together["median_ms"],
        "one_by_one_ms": alone["median_ms"],
        "phases_ms": together["phases_ms"],
        "times": asdict(paired_ratio(together["blocks_ms"], alone["blocks_ms"])),
        "first_difference": first_difference(alone["token_ids"], together["token_ids"]),
    }


def many_lengths(plan: SessionPlan, work: Work, say: Say) -> dict[str, Any]:
    """Count graphs compiled by the warm-up, and by thirty lengths after it, LoRA on and off."""
    say(f"{work.shape.name}: warming up, then {STEPS} lengths")
    with WorkerProcess(COMPILE, work.folder, plan.threads) as worker:
        warm = worker.ask("warm_up")
        found = worker.ask(
            "lengths", shortest_s=SHORTEST_S, longest_s=max(work.seconds), steps=STEPS
        )
    return {
        "lengths": STEPS,
        "warm_up_s": warm.end_to_end_ms / 1000,
        "first_graphs": warm.graphs,
        "later_graphs": found.graphs,
    }


def from_package(plan: SessionPlan, work: Work, say: Say) -> dict[str, Any]:
    """Time until every graph of single clips has run, loading included, imports not.

    The package is built first, by the command that users have; an earlier one may be stale.

    Returns:
        Seconds of building, loading and until ready; graphs that were still compiled.
    """
    say(f"{work.shape.name}: building its package")
    packages, begin = plan.root / "packages", time.perf_counter()
    run_command(
        [sys.executable, "-m", "core", "package", str(work.folder)]
        + ["--device", "cpu", "--dtype", "float32", "--output-dir", str(packages.resolve())],
        threads=plan.threads,
    )
    build_s = time.perf_counter() - begin
    with WorkerProcess(COMPILE, work.folder, plan.threads, packages=packages) as worker:
        warm = worker.ask("warm_up")
        load_s = worker.load_s
    return {
        "build_s": build_s,
        "load_s": load_s,
        "ready_s": load_s + warm.end_to_end_ms / 1000,
        "graphs": warm.graphs,
    }


def real_recordings(plan: SessionPlan, work: Work, say: Say) -> dict[str, Any]:
    """Transcribe every bundled recording to its own end, with and without drafts."""
    files = recordings_in(EXAMPLES)
    names = [n for n in ON_RECORDINGS if COMPILE in plan.systems or COMPILE not in n]
    say(f"{work.shape.name}: {len(files)} recordings, with and without drafts")
    workers = [WorkerProcess(name, work.folder, plan.threads) for name in names]
    try:
        arms = [Arm(w.system.name, partial(_all_of, w, files)) for w in workers]
        for arm in arms:
            arm.run()
        blocks = interleave(arms, work.repeats)
    finally:
        for worker in workers:
            worker.close()
    runs = {name: found[0][0] for name, found in blocks.items()}
    times = {
        name: [(a.end_to_end_ms + b.end_to_end_ms) / 2 for a, b in blocks[name]] for name in names
    }
    pairs = [(plain, drafts) for plain, drafts in zip(names[::2], names[1::2], strict=True)]
    return {
        "num_recordings": len(files),
        "median_ms": {name: float(np.median(values)) for name, values in times.items()},
        "passes": {name: runs[name].passes for name in names},
        "texts_differ": [
            file.name
            for number, file in enumerate(files)
            if len({tuple(runs[name].extra["ids"][number]) for name in names}) > 1
        ],
        "times": {
            drafts: asdict(paired_ratio(times[drafts], times[plain])) for plain, drafts in pairs
        },
    }


def _all_of(worker: WorkerProcess, files: Sequence[Path]) -> Answer:
    """All recordings as one answer; passes: how often the decoder ran."""
    found = [worker.ask("recording", file=file) for file in files]
    # Without drafts every token costs a pass, and so does the end.
    passes = sum(len(a.token_ids) + 1 if a.passes is None else a.passes for a in found)
    return Answer(
        end_to_end_ms=sum(a.end_to_end_ms for a in found),
        phases_ms={},
        token_ids=tuple(token for a in found for token in a.token_ids),
        graphs=sum(a.graphs for a in found),
        peak_bytes=found[-1].peak_bytes,
        passes=passes,
        extra={"ids": [list(a.token_ids) for a in found]},
    )


def long_files(plan: SessionPlan, work: Work, say: Say) -> list[dict[str, Any]]:
    """Measure peak memory of files of several lengths, each in a process of its own."""
    rows = []
    for minutes in plan.minutes:
        say(f"{work.shape.name}: a recording of {minutes:g} minutes")
        file = plan.root / f"speech-{minutes:g}-minutes.flac"
        if not file.is_file():
            write_long(file, minutes)
        with WorkerProcess(DRAFTS, work.folder, plan.threads) as worker:
            answer = worker.ask("long", file=file)
        rows.append(
            {
                "minutes": minutes,
                "peak_bytes": answer.peak_bytes,
                "end_to_end_ms": answer.end_to_end_ms,
                "rtf": answer.end_to_end_ms / 60_000 / minutes,
                "words": len(answer.text.split()),
            }
        )
    return rows


def write_long(file: Path, minutes: float) -> None:
    """Write the bundled recording again and again, with pauses of a second, as a FLAC file."""
    once = np.concatenate([load_audio(CLIP).numpy(), np.zeros(SAMPLE_RATE, np.float32)])
    left = round(60 * minutes * SAMPLE_RATE)
    with soundfile.SoundFile(file, "w", SAMPLE_RATE, 1, format="FLAC") as out:
        while left > 0:
            out.write(once[:left])
            left -= len(once)
