"""A finished transcription in words and numbers: what it cost, what it is unsure of.

In: an outcome. Out: plain text, or HTML where the name ends in ``_html``; everything that came from
outside is escaped in it. No Gradio, no torch.
"""

from __future__ import annotations

from html import escape

from app.service.updates import RequestResult
from app.wording.comparison import marked
from app.wording.phrases import seconds, sentence
from app.wording.terms import term_html
from core.text.transcript import Transcript
from core.units import counted, format_bytes, format_ms
from profiling.figures.phase_bars import with_other
from profiling.figures.style import PHASE_TITLES

RTF = "Real-time factor"
UNSURE_BELOW = 0.6  # words below this probability are marked
MOST_UNSURE = 5


def headline(outcome: RequestResult) -> str:
    """Describe a finished request in a sentence or two."""
    t = outcome.transcript
    spent_s = t.end_to_end_ms / 1000
    if t.stopped:
        kept = "The text so far is kept." if t.text else "There is no text yet."
        return f"Stopped after {seconds(spent_s)}. {kept}"
    if not t.text and t.warnings:
        return f"{sentence(t.warnings[0])} The recording is {t.audio_s:.1f} s long."
    words = f"Transcribed {t.audio_s:.1f} s of audio in {seconds(spent_s)}"
    if t.rtf > 0:
        words += f", {_pace(t.rtf)}"
    if outcome.compile_s > 0:
        words += (
            f". Of that, {seconds(outcome.compile_s)} compiled its graphs; the next run is faster"
        )
    if outcome.load_s >= 0.05:
        words += f". Loading the model took {seconds(outcome.load_s)} before that"
    return words + "."


def _pace(rtf: float) -> str:
    if rtf < 1:
        return f"{1 / rtf:.1f}x faster than real time"
    return f"{rtf:.1f}x slower than real time"


def figures(outcome: RequestResult) -> list[tuple[str, str, str]]:
    """List (name, value, meaning) of the numbers beside a transcript."""
    t = outcome.transcript
    rows = []
    if t.rtf > 0:
        heard = "what was heard before the stop" if t.stopped else "audio length"
        note = f"run time / {heard}; below 1 is faster than real time"
        rows.append((RTF, f"{t.rtf:.2f}", note))
    if t.time_to_first_token_ms is not None:
        rows.append(("First token", format_ms(t.time_to_first_token_ms), "after the start"))
    if t.new_tokens_per_s is not None:
        rows.append(("Tokens per second", f"{t.new_tokens_per_s:.0f}", "after the first"))
    if t.draft is not None and t.draft.drafted:
        kept = f"{t.draft.accepted} of {t.draft.drafted}"
        rows.append(("Drafts kept", kept, f"in {counted(t.draft.passes, 'pass')} of the decoder"))
    if t.peak_memory_bytes:
        on_gpu = (outcome.summary.device or "cpu") != "cpu"
        where = "on the device, this run" if on_gpu else "of the whole program"
        rows.append(("Peak memory", format_bytes(t.peak_memory_bytes), where))
    return rows


def figures_html(outcome: RequestResult) -> str:
    """Format the numbers as tiles, and the phase times as a table for screen readers."""
    tiles = "".join(
        f"<div><dt>{escape(name)}{term_html('rtf') if name == RTF else ''}</dt>"
        f"<dd>{escape(value)}<small>{escape(note)}</small></dd></div>"
        for name, value, note in figures(outcome)
    )
    t = outcome.transcript
    rows = "".join(
        f"<tr><th scope='row'>{escape(PHASE_TITLES.get(phase.name, phase.name))}</th>"
        f"<td>{format_ms(phase.ms)}</td></tr>"
        for phase in with_other(t.phases, t.end_to_end_ms)
    )
    table = f"<table class='for-readers'><caption>Time by phase</caption>{rows}</table>"
    return f"<dl class='numbers'>{tiles}</dl>{table}"


def unsure(transcript: Transcript) -> str:
    """Name the least certain words; empty where all are certain."""
    rated = [(w.confidence, w.text) for w in transcript.words if w.confidence is not None]
    low = sorted(pair for pair in rated if pair[0] < UNSURE_BELOW)[:MOST_UNSURE]
    if not low:
        return ""
    named = ", ".join(f"“{text}” ({100 * sure:.0f} %)" for sure, text in low)
    return f"Least sure of: {named}"


def notes_html(outcome: RequestResult) -> str:
    """Format warnings, and the least certain words."""
    t = outcome.transcript
    shown = t.warnings if t.text or t.stopped else ()  # the headline says why there is no text
    lines = [("warning", sentence(warning)) for warning in shown]
    if unsure(t):
        lines.append(("aside", unsure(t)))
    notes = "".join(f"<p class='note {kind}'>{escape(line)}</p>" for kind, line in lines)
    return notes + edit_html(t)


def edit_html(transcript: Transcript) -> str:
    """Format the first hypothesis and its edit, differing words marked; empty without an edit."""
    draft = transcript.draft
    if draft is None or draft.text is None or not draft.passes:
        return ""
    if draft.text.split() == transcript.text.split():
        return "<p class='note aside'>The editor left the CTC draft as it was.</p>"
    before, after = marked(draft.text, transcript.text)
    titles = ("First hypothesis, by CTC", before), ("Edited by the decoder", after)
    blocks = (f"<div><h3>{title}</h3><p>{text}</p></div>" for title, text in titles)
    return f"<div class='both'>{''.join(blocks)}</div>"
