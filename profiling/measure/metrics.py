"""Every metric's definition, in one place: the sentence that stands on the chart, and its formula.

In: times of one request and what it made. Out: numbers in the unit their name states, None where
there is nothing to divide. A prompt's or a recording's tokens never count as new tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

# key -> (title, unit, what it is)
DEFINITIONS: dict[str, tuple[str, str, str]] = {
    "end_to_end_ms": (
        "End to end",
        "ms",
        "From the call with an encoded recording to the final text, decoding the recording and "
        "writing the text included, loading the model not.",
    ),
    "rtf": (
        "Real-time factor",
        "s/s",
        "End-to-end time over the recording's length, of a batch over all its recordings'; below 1 "
        "is faster than it was spoken.",
    ),
    "time_to_first_token_ms": (
        "Time to first token",
        "ms",
        "From the call until the first new token is there: every phase up to and including the "
        "prefill.",
    ),
    "inter_token_ms": (
        "Inter-token latency",
        "ms",
        "From one new token to the next as the caller sees them: the decode step and handing the "
        "text over. The first token is not one of them.",
    ),
    "new_tokens_per_s": (
        "New tokens per second",
        "1/s",
        "Generated tokens after the first, over the time after the prefill (decode, draft and "
        "verify), of a batch in all its recordings. Tokens of the prompt and of the recording "
        "are read, not made, and never counted.",
    ),
    "peak_memory_bytes": (
        "Peak memory",
        "bytes",
        "On CUDA the most the allocator held at once during the run, weights included; on a CPU "
        "the largest resident set of the process during the run; since its start where the "
        "system cannot begin anew.",
    ),
    "launches_per_token": (
        "Launches per token",
        "",
        "Kernels or graphs launched in one decode step (CUDA), or operators that did work plus "
        "fused kernels (CPU); from the trace.",
    ),
    "acceptance": (
        "Draft acceptance",
        "",
        "Drafted tokens that were kept, over all that were drafted.",
    ),
    "phase_ms": (
        "Phase time",
        "ms",
        "Wall time inside the phase, timed with the profiler off; a GPU is waited for at both "
        "ends. 'other' is end-to-end time in no phase.",
    ),
    "profiler_tax": (
        "Profiler overhead",
        "x",
        "The same steps of the same workload with the profiler on, over off. Times are never "
        "taken from a profiled run.",
    ),
}


@dataclass(frozen=True)
class Spread:
    """Middle and spread of n values in one unit; iqr is the distance between the quartiles."""

    n: int
    median: float
    p90: float
    iqr: float
    least: float


def spread(values: Sequence[float]) -> Spread:
    """Return middle and spread of values; quantiles by linear interpolation.

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("no values came; expected at least one")
    low, middle, high, ninety = np.percentile(values, (25, 50, 75, 90)).tolist()
    return Spread(len(values), middle, ninety, high - low, min(values))


def real_time_factor(end_to_end_ms: float, audio_s: float) -> float | None:
    """Return seconds of work per second of recording."""
    return end_to_end_ms / 1000 / audio_s if audio_s > 0 else None


def inter_token_ms(gaps_ms: Sequence[float]) -> dict[str, float] | None:
    """Return median and p90 of the waits between successive new tokens."""
    if not gaps_ms:
        return None
    return {"median": median(gaps_ms), "p90": spread(gaps_ms).p90}


def acceptance(drafted: int, accepted: int) -> float | None:
    """Return share of drafted tokens that were kept."""
    return accepted / drafted if drafted else None
