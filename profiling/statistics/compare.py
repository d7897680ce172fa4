"""Two runs -> what differs: ratios with intervals, verdicts in words, text and tokens, break-even.

In: two runs as their ``run.json`` states them. Out: :class:`Comparison`; its ratios are the time of
``b`` over the time of ``a``, so below 1 means that b is faster.

Runs of one session were interleaved block by block and are compared in pairs, against the noise
that the session's A/A arm showed. Runs measured apart can only be compared loosely, and the
comparison says so: what changed between them is in no interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from core.text.word_errors import word_errors
from profiling.measure.timing import END_TO_END
from profiling.measure.workload import Workload
from profiling.statistics.encoder_decoder import encoder_and_decoder, memory_by_phase
from profiling.statistics.text_agreement import first_difference
from profiling.statistics.verdicts import PhaseVerdict, phase_verdicts

APART = (
    "the runs were measured apart: what changed on the machine in between is in no interval; "
    "measure both in one run to compare them"
)
NO_FLOOR = "no A/A arm was measured: noise between equal runs is unknown here"
BUSY = "other processes used {share:.0%} of the processor while {name} was measured"
BUSY_SHARE = 0.1


@dataclass(frozen=True)
class Comparison:
    """b against a. noise_floor: phase -> (low, high) ratios that equal work showed.

    first_difference: index of the first token that differs, None if none does.
    break_even_clips: clips after which b's compiling has paid for itself, None if it never does.
    packaged_seconds: what building the package took that b was loaded from, None without one.
    headline and memory: see :mod:`profiling.statistics.encoder_decoder`. memory_parts: of "a" and
    of "b" what memory held, as :func:`profiling.measure.memory_runs.memory_parts` says.
    """

    a: str
    b: str
    a_label: str
    b_label: str
    end_to_end: PhaseVerdict
    phases: tuple[PhaseVerdict, ...]
    noise_floor: dict[str, tuple[float, float]]
    num_blocks: int
    paired: bool
    tokens_identical: bool
    first_difference: int | None
    wer_a: float | None
    wer_b: float | None
    compile_seconds: float | None
    packaged_seconds: float | None
    break_even_clips: int | None
    break_even: str
    headline: list[dict[str, Any]]
    memory: list[dict[str, Any]]
    memory_parts: dict[str, dict[str, Any]]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {**asdict(self), "ratio_is": "time of b / time of a"}


def compare(
    a: Mapping[str, Any], b: Mapping[str, Any], *, reference: str | None = None, seed: int = 0
) -> Comparison:
    """Return the comparison of two runs.

    Args:
        a: ``run.json`` of the baseline.
        b: of the other.
        reference: what was really said, for word error rates.
        seed: of the resampling.

    Raises:
        UserError: a run lacks what a comparison needs.
    """
    rows, floors, paired = phase_verdicts(a, b, seed=seed)
    whole = rows.pop(END_TO_END)
    ledger = b.get("compile") or {}
    packaged, spent = ledger.get("packaged_seconds"), ledger.get("seconds")
    if packaged is not None and not spent:
        spent = None
    clips = break_even_clips(spent, whole)
    first = first_difference(a.get("token_ids", ()), b.get("token_ids", ()))
    return Comparison(
        a=str(a.get("id", "a")),
        b=str(b.get("id", "b")),
        a_label=_label(a),
        b_label=_label(b),
        end_to_end=whole,
        phases=tuple(rows.values()),
        noise_floor=floors,
        num_blocks=min(len(run["samples"][END_TO_END]) for run in (a, b)),
        paired=paired,
        tokens_identical=first is None,
        first_difference=first,
        wer_a=_wer(reference, a),
        wer_b=_wer(reference, b),
        compile_seconds=spent,
        packaged_seconds=packaged,
        break_even_clips=clips,
        break_even=_break_even_words(spent, packaged, clips),
        headline=encoder_and_decoder(a, b),
        memory=memory_by_phase(a, b),
        memory_parts={
            at: r["memory_parts"]
            for at, r in zip("ab", (a, b), strict=True)
            if r.get("memory_parts")
        },
        warnings=tuple(_warnings(a, b, paired=paired, has_floor=bool(floors))),
    )


def break_even_clips(compile_seconds: float | None, whole: PhaseVerdict) -> int | None:
    """Return the clips until the seconds spent on compiling have come back; None if they never do.

    Only a difference that was shown can pay anything back.
    """
    if compile_seconds is None or whole.a_ms is None or whole.ratio is None:
        return None
    saved_ms = whole.a_ms * (1 - whole.ratio)
    if saved_ms <= 0 or not whole.shown:
        return None
    return math.ceil(1000 * compile_seconds / saved_ms)


def _break_even_words(
    compile_seconds: float | None, packaged_seconds: float | None, clips: int | None
) -> str:
    if compile_seconds is None:
        if packaged_seconds is not None:
            return f"loaded from a package, built in {packaged_seconds:.1f} s"
        return "nothing was compiled"
    if clips is None:
        return f"compiling took {compile_seconds:.1f} s and has not been shown to pay off"
    return f"compiling took {compile_seconds:.1f} s: pays off after {clips} clips like this one"


def _wer(reference: str | None, run: Mapping[str, Any]) -> float | None:
    if reference is None or not reference.strip():
        return None
    errors, words = word_errors(reference, str(run.get("transcript_text", "")))
    return errors / words if words else None


def _label(run: Mapping[str, Any]) -> str:
    return Workload.from_json(run["workload"]).label() if "workload" in run else "unknown"


def _warnings(
    a: Mapping[str, Any], b: Mapping[str, Any], *, paired: bool, has_floor: bool
) -> list[str]:
    found = [] if paired else [APART]
    found += [] if has_floor else [NO_FLOOR]
    if "workload" in a and "workload" in b:
        different = Workload.from_json(a["workload"]).same_work(Workload.from_json(b["workload"]))
        if different:
            found.append(f"the runs did different work: {', '.join(different)}")
    num_tokens = [len(run.get("token_ids") or ()) for run in (a, b)]
    if num_tokens[0] != num_tokens[1]:
        found.append(
            "the runs made {} and {} tokens: decoding is not equal work".format(*num_tokens)
        )
    for name, run in (("A", a), ("B", b)):
        share = (run.get("machine") or {}).get("others_cpu_share")
        if share is not None and share > BUSY_SHARE:
            found.append(BUSY.format(share=share, name=name))
    return found
