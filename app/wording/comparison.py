"""Two measured runs and their comparison in words, and both texts with what differs marked.

In: runs and a comparison as their JSON states them, progress. Out: plain text, or HTML where the
name ends in ``_html``; everything that came from outside is escaped in it. No Gradio, no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from html import escape
from typing import Any

from app.service.measurement_job import (
    MeasurementProgress,
    MeasurementResult,
    MeasurementStage,
)
from app.wording import phrases
from app.wording.progress import progress_html
from core.units import counted
from profiling.report.columns import COMPARISON_COLUMNS, MEMORY_COLUMNS
from profiling.report.page import Page
from profiling.report.sections import headline
from profiling.report.sentences import end_to_end_said, verdict_rows
from profiling.statistics.text_agreement import agreement_said

READY = "Choose a recording and what to compare, then press Compare."
EMPTY = (
    "You then see both texts with their differences marked, the time of each phase side by side, "
    "and whether the difference is more than noise."
)
NOTE = (
    "Each block runs A, B, and A again, forwards and backwards, so that whatever slows the machine "
    "slows all of them. Running A twice shows the noise. A verdict needs at least six blocks; more "
    "narrow the interval. How many fit is decided after warming up, before anything is timed."
)
RATIOS = (
    "B's time over A's with its 95 % interval: left of 1, B is faster. The grey band is A against "
    "itself: differences inside the band are noise."
)
WAITING = "Waiting for the model…"
STOPPING = "Stopping after this run; finished blocks are kept."
NOT_BEGUN = "Stopped before it began."
KEPT = "Both runs, with their traces, are in the list of the Profile tab."
ENGINES = {"eager": "eager", "compile": "compiled"}
ADAPTER = {True: "LoRA on", False: "LoRA off", None: "no adapter"}
DECODINGS = {
    "greedy": "greedy",
    "speculative": "exact drafts",
    "beam": "beam search",
    "sample": "sampling",
}


def names(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[str, str]:
    """Name what sets two runs apart, in a few words each: ("eager", "compiled")."""
    one, two = a["workload"], b["workload"]
    said: list[tuple[str, str]] = [
        (str(words(one)), str(words(two)))
        for words in (
            lambda work: work["model"],
            lambda work: ENGINES.get(work["engine"], work["engine"]),
            _adapter,
            lambda work: DECODINGS.get(work["decoding"], work["decoding"]),
            lambda work: work["dtype"],
            lambda work: work.get("quantize") or "full weights",
            lambda work: work["device"],
        )
        if words(one) != words(two)
    ]
    if not said:
        return "A", "B"
    return ", ".join(pair[0] for pair in said), ", ".join(pair[1] for pair in said)


def _adapter(work: Mapping[str, Any]) -> str:
    return f"adapter {work['adapter']}" if work.get("adapter") else ADAPTER[work["lora"]]


def measuring_html(doing: MeasurementProgress) -> str:
    """Format how far a measurement is."""
    text = doing.text[:1].upper() + doing.text[1:]
    if doing.stage is MeasurementStage.COMPILING:
        text += "; the first time builds graphs, which takes seconds to minutes"
    return progress_html(text, doing.share, doing.left_s)


def verdict(measured: MeasurementResult) -> str:
    """State the answer in one sentence."""
    a, b = names(*measured.runs)
    return end_to_end_said(measured.comparison or {}, a, b)


def answer_html(measured: MeasurementResult) -> str:
    """Format the verdict, tokens, break-even, and what makes the numbers doubtful."""
    found = measured.comparison or {}
    page = Page("", {})
    page.tiles(headline(found, names(*measured.runs)))
    lines = [
        f"<p class='verdict'>{escape(verdict(measured))}</p>",
        *page.parts,
        f"<p>{escape(agreement_said(found))} {escape(_blocks_said(found))}</p>",
    ]
    if found.get("compile_seconds") is not None or found.get("packaged_seconds") is not None:
        lines.append(f"<p>{escape(phrases.sentence(found['break_even']))}</p>")
    warned = [*dict.fromkeys(w for run in measured.runs for w in run.get("warnings") or ())]
    for warning in (*warned, *found.get("warnings", ())):
        lines.append(f"<p class='note warning'>{escape(phrases.sentence(str(warning)))}</p>")
    return "".join(lines)


def _blocks_said(found: Mapping[str, Any]) -> str:
    number = found.get("num_blocks")
    return "" if number is None else f"Timed in {counted(number, 'block')} of two runs each."


def texts_html(measured: MeasurementResult) -> str:
    """Format both texts side by side, differing words marked."""
    a, b = (str(run.get("transcript_text") or "") for run in measured.runs)
    left, right = marked(a, b)
    labels = names(*measured.runs)
    blocks = (
        f"<div class='arm-{key}'><h3>{key.upper()}: {escape(label)}</h3><p>{text}</p></div>"
        for key, label, text in zip("ab", labels, (left, right), strict=True)
    )
    return f"<div class='both'>{''.join(blocks)}</div>"


def marked(a: str, b: str) -> tuple[str, str]:
    """Format both texts; words that the other lacks stand in ``<mark>``."""
    one, two = a.split(), b.split()
    parts = SequenceMatcher(None, one, two, autojunk=False).get_opcodes()
    left = [_piece(one[start:end], kind != "equal") for kind, start, end, _, _ in parts]
    right = [_piece(two[start:end], kind != "equal") for kind, _, _, start, end in parts]
    nothing = "<em>no text</em>"
    return " ".join(filter(None, left)) or nothing, " ".join(filter(None, right)) or nothing


def _piece(some: Sequence[str], differs: bool) -> str:
    text = escape(" ".join(some))
    return f"<mark>{text}</mark>" if text and differs else text


def table_html(found: Mapping[str, Any]) -> str:
    """Format phases, ratios, intervals and verdicts."""
    page = Page("", {})
    page.table(verdict_rows(found), COMPARISON_COLUMNS)
    return "".join(page.parts)


def memory_html(found: Mapping[str, Any]) -> str:
    """Format the peak memory of each phase; empty where none was recorded."""
    page, rows = Page("", {}), found.get("memory") or ()
    if rows:
        page.table(rows, MEMORY_COLUMNS)
    return "".join(page.parts)
