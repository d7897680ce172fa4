"""``python -m benchmarks models``: how much faster one model reads recordings than another.

In: two models and a folder of recordings. Out: milliseconds end to end of each, and how many times
faster the second is. The models take turns on every recording, so that both meet the machine as it
is at that moment.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch

import core
from benchmarks.clips import EXAMPLES, recordings_in
from core.audio.decode import load_audio
from core.errors import UserError
from profiling.measure.quiet_process import undisturbed
from profiling.statistics.intervals import paired_ratio


def time_both(
    models: Sequence[str], files: Sequence[Path], *, threads: int, repeats: int
) -> dict[str, Any]:
    """Transcribe every recording ``repeats`` times with each of two models, in turns.

    Args:
        models: names, repository ids or folders, as for ``core.load``.
        files: recordings.
        threads: of torch.
        repeats: runs of each recording and model; the median counts.

    Returns:
        Plain JSON.
    """
    labs = [core.load(name, device="cpu", dtype="float32") for name in models]
    times: list[list[float]] = [[] for _ in labs]
    for file in files:
        waveform = load_audio(file)
        for lab in labs:
            lab.transcribe(waveform)  # the first of a length prepares its products
        runs: list[list[float]] = [[] for _ in labs]
        with undisturbed(threads):
            for turn in range(repeats):
                for place in (0, 1) if turn % 2 == 0 else (1, 0):
                    runs[place].append(labs[place].transcribe(waveform).end_to_end_ms)
        for place, many in enumerate(runs):
            times[place].append(median(many))
    faster = paired_ratio(times[1], times[0])
    return {
        "models": list(models),
        "recordings": len(files),
        "mean_ms": [fmean(one) for one in times],
        "faster": asdict(faster),
    }


def models_text(found: dict[str, Any]) -> str:
    """Write what was found in one line."""
    (first, second), (slow, quick), ratio = found["models"], found["mean_ms"], found["faster"]
    return (
        f"{found['recordings']} recordings, end to end: {first} {slow:.1f} ms, {second} "
        f"{quick:.1f} ms; {second} is {ratio['ratio']:.2f} times as fast "
        f"({ratio['low']:.2f} to {ratio['high']:.2f})"
    )


def main(arguments: Sequence[str]) -> int:
    """Print the result.

    Returns:
        The exit status.

    Raises:
        UserError: not two models, or no run at all was asked for.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks models", description=__doc__)
    add = parser.add_argument
    add("--models", default="tiny,tiny-ctc", help="two catalog names, repository ids or folders")
    add("--recordings", type=Path, default=EXAMPLES, help="a folder of flac, wav or mp3 files")
    add("--limit", type=int, help="only so many of them")
    add("--repeats", type=int, default=5, help="runs of each recording and model")
    add("--threads", type=int, default=torch.get_num_threads(), help="of torch")
    add("--json", action="store_true", help="as JSON")
    parsed = parser.parse_args(arguments)
    models = parsed.models.split(",")
    if len(models) != 2 or parsed.repeats < 1:
        raise UserError(
            f"--models is {parsed.models} and --repeats {parsed.repeats}; expected two models, "
            "separated by a comma, and 1 or more"
        )
    files = recordings_in(parsed.recordings)[: parsed.limit]
    found = time_both(models, files, threads=parsed.threads, repeats=parsed.repeats)
    print(json.dumps(found, indent=2) if parsed.json else models_text(found))
    return 0
