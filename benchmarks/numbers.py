"""Blocks of answers -> medians, ratios with intervals, equal tokens. Pure, but for :func:`spent`.

In: answers of one system at one length, two a block. Out: plain JSON types.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from statistics import median
from typing import Any

from benchmarks.process import WorkerFailed
from benchmarks.systems import PEER_EAGER, Answer
from core.phases import DECODE, DRAFT, VERIFY
from profiling.measure.timing import block_ms
from profiling.statistics.intervals import paired_ratio, unpaired_ratio
from profiling.statistics.text_agreement import first_difference

AFTER_PREFILL = (DRAFT, VERIFY, DECODE)


@contextmanager
def spent(failures: list[str]) -> Iterator[None]:
    """Note a failure and go on: one system must not take the others' numbers with it."""
    try:
        yield
    except WorkerFailed as error:
        failures.append(str(error))


def summary(blocks: Sequence[tuple[Answer, Answer]], num_tokens: int) -> dict[str, Any]:
    """Return a summary of one system: milliseconds by block, medians, tokens and memory.

    ms_per_token leaves out the first token, which comes out of the prefill.
    """
    runs = [run for block in blocks for run in block]
    names = dict.fromkeys(name for run in runs for name in run.phases_ms)
    phases = {name: median(run.phases_ms.get(name, 0.0) for run in runs) for name in names}
    after = [sum(run.phases_ms.get(n, 0.0) for n in AFTER_PREFILL) for run in runs]
    return {
        "blocks_ms": [block_ms(run.end_to_end_ms for run in block) for block in blocks],
        "median_ms": median(run.end_to_end_ms for run in runs),
        "phases_ms": phases,
        "ms_per_token": median(after) / (num_tokens - 1) if num_tokens > 1 else None,
        "late_graphs": sum(run.graphs for run in runs),
        "peak_bytes": max(run.peak_bytes for run in runs),
        "token_ids": list(runs[0].token_ids),
        "same_every_time": len({run.token_ids for run in runs}) == 1,
    }


def equal_tokens(found: dict[str, dict[str, Any]], names: Sequence[str]) -> None:
    """Add to each of ``names`` where its tokens part from transformers' (None: nowhere)."""
    if not names:
        return
    base = PEER_EAGER if PEER_EAGER in names else names[0]
    for name in names:
        found[name]["compared_with"] = base
        found[name]["first_difference"] = first_difference(
            found[base]["token_ids"], found[name]["token_ids"]
        )


def faster(
    found: Mapping[str, Mapping[str, Any]], slow: str, fast: str, *, paired: bool
) -> dict[str, Any] | None:
    """Compare two systems.

    Args:
        found: what each system gave, by name.
        slow: the one that is compared with.
        fast: the one whose speed is wanted.
        paired: whether their blocks were run side by side.

    Returns:
        How many times faster ``fast`` is, as {ratio, low, high, n}; None if one is not there.
    """
    if slow not in found or fast not in found:
        return None
    ratio = paired_ratio if paired else unpaired_ratio
    return asdict(ratio(found[fast]["blocks_ms"], found[slow]["blocks_ms"]))
