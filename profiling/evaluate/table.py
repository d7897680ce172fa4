"""Results -> one row a variant: how good, how fast, how heavy.

In: a data set, variants, and what was measured of them. Out: :class:`Score` rows, as a table in
text. Rates are errors over words (or characters) of all recordings together; intervals are 95 %,
whole recordings resampled (:func:`core.text.word_errors.ratio_interval`), their ends spread as
Student's t is for few.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from core.text.word_errors import character_errors, ratio_interval, word_errors
from core.units import format_bytes, format_ms
from profiling.evaluate.data import LabelledClip, named, share_no_word
from profiling.evaluate.results import Result, ResultFile
from profiling.evaluate.variants import Variant
from profiling.statistics.intervals import FEWEST_BLOCKS, tail_share

Interval = tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class Score:
    """One variant over the data set; what is not known is None.

    Attributes:
        variant: its name.
        done: recordings that have a text.
        failed: recordings that gave an error.
        total: recordings of the data set.
        wer, cer: shares of words and characters; both with an interval.
        rtfx: seconds of sound for each second of work, with an interval.
        p50_ms, p95_ms: of the passes, as a recording waits for them.
        first_text_ms: median time to the first token.
        peak_bytes: the most memory of any pass.
        joules_per_minute: of sound.
        energy_method: what counted it.
        machine: where it ran; several, where it went on elsewhere.
        problem: why it cannot run, or could not go on.
    """

    variant: str
    done: int
    failed: int
    total: int
    wer: float | None = None
    wer_interval: Interval = None
    cer: float | None = None
    cer_interval: Interval = None
    rtfx: float | None = None
    rtfx_interval: Interval = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    first_text_ms: float | None = None
    peak_bytes: int | None = None
    joules_per_minute: float | None = None
    energy_method: str | None = None
    machine: str = ""
    problem: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)


def scores(
    samples: Sequence[LabelledClip],
    variants: Sequence[Variant],
    results: ResultFile,
    normalizer: str,
    problems: Mapping[str, str],
) -> list[Score]:
    """Score every variant on what there is of it.

    Args:
        samples: the data set.
        variants: all of them, those that cannot run included.
        results: what was measured.
        normalizer: of :mod:`core.text.normalizers`.
        problems: by a variant's name.

    Returns:
        A row a variant, in order.
    """
    rows = []
    for variant in variants:
        name = variant.name
        found = [
            (sample.text, row)
            for sample in samples
            if (row := results.rows.get((name, sample.key))) is not None
        ]
        done = [(text, row) for text, row in found if row.error is None]
        known = _measured(done, normalizer) if done else {}
        rows.append(
            Score(
                variant=name,
                done=len(done),
                failed=len(found) - len(done),
                total=len(samples),
                problem=problems.get(name),
                **known,
            )
        )
    return rows


def _measured(done: Sequence[tuple[str, Result]], normalizer: str) -> dict[str, Any]:
    rows = [row for _, row in done]
    audio_s, time_s = (np.array([getattr(row, key) for row in rows]) for key in _SECONDS)
    latencies = np.percentile([row.latency_ms for row in rows], (50, 95))
    firsts = [row.first_text_ms for row in rows if row.first_text_ms is not None]
    peaks = [row.peak_bytes for row in rows]
    joules = [row.joules for row in rows]
    minutes = audio_s.sum() / 60
    counted = None not in joules and minutes > 0
    return {
        **error_rates([(text, row.pred_text or "") for text, row in done], normalizer),
        **_ratio("rtfx", audio_s, time_s),
        "p50_ms": float(latencies[0]),
        "p95_ms": float(latencies[1]),
        "first_text_ms": float(np.median(firsts)) if firsts else None,
        "peak_bytes": None if None in peaks else max(one for one in peaks if one is not None),
        "joules_per_minute": sum(one or 0.0 for one in joules) / minutes if counted else None,
        "energy_method": "; ".join(_each(row.energy_method for row in rows)) or None,
        "machine": "; ".join(_each(row.machine for row in rows)),
    }


_SECONDS = ("audio_s", "time_s")


def error_rates(pairs: Sequence[tuple[str, str]], normalizer: str) -> dict[str, Any]:
    """Compute ``wer`` and ``cer`` over all recordings together, each with its ``_interval``.

    Args:
        pairs: of (reference, transcript); at least one.
        normalizer: of :mod:`core.text.normalizers`.

    Returns:
        Rates; without a rate where no reference has a word, an interval None for few recordings.
    """
    words, characters = (
        np.array([count(said, heard, normalizer) for said, heard in pairs])
        for count in (word_errors, character_errors)
    )
    return {
        **_ratio("wer", words[:, 0], words[:, 1]),
        **_ratio("cer", characters[:, 0], characters[:, 1]),
    }


def strangers(samples: Sequence[LabelledClip], results: ResultFile) -> list[str]:
    """Name recordings whose text is probably another's, or in another language.

    Returns:
        A warning where there are any.
    """
    heard: dict[str, list[str]] = {}
    for (_, key), row in results.rows.items():
        if row.error is None:
            heard.setdefault(key, []).append(row.pred_text or "")
    names = [
        one.name
        for one in samples
        if (texts := heard.get(one.key)) and all(share_no_word(one.text, text) for text in texts)
    ]
    return named(
        names,
        "recording",
        "sharing no word with the text (of another recording, or in another language?)",
    )


def _ratio(name: str, above: np.ndarray[Any, Any], below: np.ndarray[Any, Any]) -> dict[str, Any]:
    if not below.sum() > 0:
        return {}
    found = None
    if len(above) >= FEWEST_BLOCKS:
        found = ratio_interval(above, below, tail=tail_share(len(above)))
    return {name: float(above.sum() / below.sum()), f"{name}_interval": found}


def _each(texts: Any) -> list[str]:
    return [text for text in dict.fromkeys(texts) if text]


def frontier(rows: Sequence[Score]) -> list[Score]:
    """Return the variants that no other beats in errors and speed at once, slowest first."""
    whole = [row for row in rows if row.wer is not None and row.rtfx is not None]
    whole.sort(key=lambda row: (-(row.rtfx or 0), row.wer or 0))
    best, kept = float("inf"), []
    for row in whole:
        if row.wer is not None and row.wer < best:
            kept.append(row)
            best = row.wer
    return kept[::-1]


COLUMNS = {
    "variant": "variant",
    "done": "recordings",
    "wer": "WER % (95 %)",
    "cer": "CER % (95 %)",
    "rtfx": "RTFx (95 %)",
    "p50_ms": "p50",
    "p95_ms": "p95",
    "first_text_ms": "first token",
    "peak_bytes": "peak memory",
    "joules_per_minute": "J per minute",
    "problem": "problem",
}


def written(row: Score) -> dict[str, str]:
    """Write a row for people, with the keys of :data:`COLUMNS`; "" is what is not known."""
    percent = {"wer": 100.0, "cer": 100.0, "rtfx": 1.0}
    failed = f", {row.failed} failed" if row.failed else ""
    cells = {"variant": row.variant, "done": f"{row.done} of {row.total}{failed}"}
    for key, scale in percent.items():
        cells[key] = with_interval(getattr(row, key), getattr(row, f"{key}_interval"), scale)
    for key in ("p50_ms", "p95_ms", "first_text_ms"):
        value = getattr(row, key)
        cells[key] = "" if value is None else format_ms(value)
    cells["peak_bytes"] = "" if row.peak_bytes is None else format_bytes(row.peak_bytes)
    used = row.joules_per_minute
    cells["joules_per_minute"] = "" if used is None else f"{used:,.3g}"
    return {**cells, "problem": row.problem or ""}


def with_interval(value: float | None, interval: Interval, scale: float) -> str:
    """Write a figure times ``scale``, its interval behind it; "" where it is not known."""
    if value is None:
        return ""
    if interval is None:
        return f"{scale * value:.2f}"
    return f"{scale * value:.2f} ({scale * interval[0]:.2f} to {scale * interval[1]:.2f})"


def table_text(rows: Sequence[Score]) -> str:
    """Write the table in text, without the columns that nothing is known of."""
    cells = [written(row) for row in rows]
    keys = [key for key in COLUMNS if key != "problem" and any(line[key] for line in cells)]
    lines = [[COLUMNS[key] for key in keys], *([line[key] for key in keys] for line in cells)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(keys))]
    table = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    return "\n".join([*table, *(f"{row.variant}: {row.problem}" for row in rows if row.problem)])
