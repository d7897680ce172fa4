"""An evaluation as one self-contained HTML page: the picture, the table, and how it was measured.

In: scores and what they were measured on. Out: the page as text.
"""

from __future__ import annotations

from collections.abc import Sequence

from profiling.evaluate.table import COLUMNS, Score, frontier, written
from profiling.figures.quality import error_against_speed
from profiling.report.page import Column, Page

MEANING = (
    "WER and CER: errors over words and characters of all recordings together. RTFx: seconds of "
    "sound over seconds of work, reading the file included. p50, p95: how long a recording waits "
    "for its pass. First token: median, from the start of the pass. Peak memory: the highest "
    "resident set of the process (on a GPU: allocated) during any pass, weights included. "
    "Intervals: 95 %, whole recordings resampled."
)
DRAWN = "Error rate against speed, one point a variant with its intervals; low and right is better"


def evaluation_page(
    rows: Sequence[Score], *, data: str, normalizer: str, warnings: Sequence[str]
) -> str:
    """Return the page.

    Args:
        rows: of the variants.
        data: the data set's name.
        normalizer: under which errors were counted.
        warnings: of the data set.
    """
    as_json = [row.to_json() for row in rows]
    numbers = {"data": data, "normalizer": normalizer, "variants": as_json}
    page = Page(f"Evaluation on {data}", numbers)
    page.heading(f"Evaluation on {data}", level=1)
    page.note(f"Errors are counted under the normaliser “{normalizer}”.")
    for warning in warnings:
        page.note(warning)
    best = [row.variant for row in frontier(rows)]
    page.figure(error_against_speed(as_json, best), DRAWN)
    page.heading("Variants")
    columns = {key: Column(title, str, key == "variant") for key, title in COLUMNS.items()}
    page.table([{k: v or None for k, v in written(row).items()} for row in rows], columns)
    page.note(MEANING)
    energy = dict.fromkeys(row.energy_method for row in rows if row.energy_method)
    said = "; ".join(energy) or "no counter can be read on this machine, so there is no figure"
    page.note(f"Energy: read before and after each pass, and summed: {said}.")
    for row in rows:
        if row.machine:
            page.note(f"{row.variant}: {row.machine}")
    return page.html()
