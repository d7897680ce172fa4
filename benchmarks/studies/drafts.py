"""``python -m benchmarks drafts``: what exact drafts save on real recordings, by their length.

In: a model and a folder of recordings. Out: a row for every length of text, in tokens, and one for
all: recordings whose tokens differ, passes of the decoder with and without drafts, milliseconds. A
draft is verified together with the prompt, so a clip whose draft is right takes one pass;
without drafts each token takes one, and the end.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

import core
from benchmarks.clips import EXAMPLES, recordings_in
from core.audio.decode import load_audio
from core.errors import UserError
from core.lab import Lab
from core.text.transcript import Transcript
from core.transcription.options import ENGINES
from profiling.measure.quiet_process import undisturbed
from profiling.statistics.intervals import paired_ratio

UP_TO = (3, 6, 10, 10_000)  # tokens of a text; the last is all the rest


@dataclass(frozen=True)
class DraftedClip:
    """One recording with drafts and without. The milliseconds are medians of its runs."""

    file: str
    num_tokens: int
    same: bool
    passes: int
    plain_ms: float
    draft_ms: float


def transcribe_both(
    model: str,
    files: Sequence[Path],
    *,
    engine: str,
    threads: int,
    repeats: int,
    say: Callable[[str], None],
) -> list[DraftedClip]:
    """Transcribe every recording with drafts and without, in turns.

    Args:
        model: a name, repository id or folder, as for ``core.load``.
        files: recordings.
        engine: "eager" or "compile".
        threads: of torch.
        repeats: runs of each recording, with and without.
        say: takes progress.

    Returns:
        One clip for each file.
    """
    lab = core.load(model, device="cpu", dtype="float32")
    say(f"{engine}: warming up")
    if engine == "compile":
        lab.warm_up()
    lab.transcribe(files[0], engine=engine)
    found = []
    for number, file in enumerate(files, start=1):
        if number % 20 == 0:
            say(f"{engine}: {number} of {len(files)}")
        found.append(_one(lab, file, engine, threads, repeats))
    return found


def _one(lab: Lab, file: Path, engine: str, threads: int, repeats: int) -> DraftedClip:
    waveform = load_audio(file)
    runs: dict[str, list[Transcript]] = {"greedy": [], "speculative": []}
    with undisturbed(threads):
        for turn in range(repeats):
            for name in sorted(runs, reverse=turn % 2 == 1):
                runs[name].append(lab.transcribe(waveform, engine=engine, decoding=name))
    plain, draft = runs["greedy"][0], runs["speculative"][0]
    times = {
        name: sorted(one.end_to_end_ms for one in many)[len(many) // 2]
        for name, many in runs.items()
    }
    return DraftedClip(
        file=file.name,
        num_tokens=len(plain.token_ids),
        same=plain.token_ids == draft.token_ids,
        passes=0 if draft.draft is None else draft.draft.passes,
        plain_ms=times["greedy"],
        draft_ms=times["speculative"],
    )


def summary_of(found: Sequence[DraftedClip]) -> list[dict[str, Any]]:
    """Summarise each group of lengths that occurs, and all recordings, as plain JSON."""
    rows, least = [], 1
    for most in UP_TO:
        group = [one for one in found if least <= one.num_tokens <= most]
        tokens = f"{least} to {most}" if most < UP_TO[-1] else f"{least} and more"
        rows += [_row(tokens, group)] if group else []
        least = most + 1
    return [*rows, _row("all", [one for one in found if one.num_tokens])]


def _row(tokens: str, group: Sequence[DraftedClip]) -> dict[str, Any]:
    plain, draft = sum(one.num_tokens + 1 for one in group), sum(one.passes for one in group)
    times = paired_ratio([one.draft_ms for one in group], [one.plain_ms for one in group])
    return {
        "tokens": tokens,
        "recordings": len(group),
        "differ": sum(not one.same for one in group),
        "plain_passes": plain,
        "draft_passes": draft,
        "fewer": plain / max(1, draft),
        "one_pass": fmean(one.passes <= 1 for one in group),
        "plain_ms": fmean(one.plain_ms for one in group),
        "draft_ms": fmean(one.draft_ms for one in group),
        "faster": asdict(times),
    }


def drafts_text(rows: Sequence[dict[str, Any]]) -> str:
    """Write the rows as a table."""
    head = "tokens        clips  differ  passes: plain  drafts   fewer  in one    ms: plain  drafts"
    lines = [head + "  faster"]
    for row in rows:
        times = row["faster"]
        lines.append(
            f"{row['tokens']:<12} {row['recordings']:>6} {row['differ']:>7}"
            f" {row['plain_passes']:>14} {row['draft_passes']:>7} {row['fewer']:>6.1f}x"
            f" {100 * row['one_pass']:>6.0f} % {row['plain_ms']:>11.1f} {row['draft_ms']:>7.1f}"
            f"  {times['ratio']:.2f}x ({times['low']:.2f} to {times['high']:.2f})"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Print the table.

    Returns:
        The exit status: 1 where tokens differ.

    Raises:
        UserError: no run at all was asked for.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks drafts", description=__doc__)
    add = parser.add_argument
    add("--model", default="tiny", help="catalog name, Hub repository id, or folder")
    add("--recordings", type=Path, default=EXAMPLES, help="a folder of flac, wav or mp3 files")
    add("--limit", type=int, help="only so many of them")
    add("--engine", choices=ENGINES, default="eager")
    add("--repeats", type=int, default=3, help="runs of each recording, with and without")
    add("--threads", type=int, default=torch.get_num_threads(), help="of torch")
    add("--json", action="store_true", help="as JSON")
    parsed = parser.parse_args(arguments)
    if parsed.repeats < 1:
        raise UserError(f"--repeats is {parsed.repeats}; expected 1 or more")
    found = transcribe_both(
        parsed.model,
        recordings_in(parsed.recordings)[: parsed.limit],
        engine=parsed.engine,
        threads=parsed.threads,
        repeats=parsed.repeats,
        say=lambda text: print(text, file=sys.stderr, flush=True),
    )
    rows = summary_of(found)
    print(json.dumps(rows, indent=2) if parsed.json else drafts_text(rows))
    return 0 if all(one.same for one in found) else 1
