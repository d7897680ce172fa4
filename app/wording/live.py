"""Live text in words: certain and tentative ones, and how far behind the speech they are.

In: a :class:`app.service.live_sessions.LiveUpdate`. Out: plain text, or HTML where the name ends in
``_html``; everything that came from outside is escaped in it. No Gradio, no torch.
"""

from __future__ import annotations

from html import escape

from app.service.live_sessions import LiveUpdate
from app.wording.phrases import clock, seconds, sentence, status_html
from core.transcription.streaming import MAX_LIVE_S, LiveState

NOTE = (
    "Press Record and speak. Dark words are final; grey ones may still change as you go on. "
    "Model, LoRA and language are those of the Transcribe tab; passes are always eager."
)
READY = "Ready. Press Record and speak."
LISTENING = "Listening…"
LOADING = "Listening; the model is being loaded. Nothing is lost."
STOPPING = "Finishing the last words…"
NOTHING = "No speech was detected. Check that the right microphone is chosen, and speak up."
FULL = f"Live text ends after {MAX_LIVE_S / 60:.0f} minutes. Stop, and record again to go on."
PLACEHOLDER = "What you say appears here."
BEHIND_S = 2.0  # more than this is told


def status(moment: LiveUpdate) -> str:
    """Say in one sentence what goes on."""
    if moment.error is not None:
        return sentence(moment.error)
    if moment.state is None:
        return LOADING
    if moment.over:
        return _ended(moment.state, full=moment.full)
    behind_s = moment.state.behind_s
    if behind_s > BEHIND_S:
        return (
            f"The text is {behind_s:.0f} s behind: the model is busy or slower than you speak. "
            "Nothing is lost; it catches up."
        )
    return FULL if moment.full else STOPPING if moment.stopping else LISTENING


def _ended(state: LiveState, *, full: bool) -> str:
    if not state.committed:
        return NOTHING
    words = (
        f"{clock(state.heard_s)} of audio; the text was at most {seconds(state.worst_s)} behind, "
        "and nothing was dropped."
    )
    return f"{FULL} {words}" if full else words


def status_line_html(moment: LiveUpdate) -> str:
    """Format :func:`status` for screen readers."""
    return status_html(status(moment), "error" if moment.error is not None else "")


def text_html(state: LiveState | None) -> str:
    """Format the words: final ones dark, tentative ones grey and slanted."""
    if state is None or not (state.committed or state.tentative):
        return f"<p class='live-text empty'>{escape(PLACEHOLDER)}</p>"
    sure = escape(" ".join(word.text for word in state.committed))
    open_words = escape(" ".join(word.text for word in state.tentative))
    tail = f"<i class='tentative'>{open_words}</i>" if open_words else ""
    return f"<p class='live-text'><span class='committed'>{sure}</span> {tail}</p>"


def numbers_html(state: LiveState | None) -> str:
    """Format the lag behind the speech and its cost."""
    if state is None:
        return ""
    rows = [
        ("Heard", clock(state.heard_s), "minutes and seconds"),
        ("Behind", seconds(state.behind_s), f"at most {seconds(state.worst_s)} so far"),
        (
            "Real-time factor",
            "–" if state.rtf is None else f"{state.rtf:.2f}",
            "model time / audio length; below 1 keeps up",
        ),
        ("Passes", str(state.num_passes), "of the model over the audio"),
    ]
    tiles = "".join(
        f"<div><dt>{name}</dt><dd>{escape(value)}<small>{escape(note)}</small></dd></div>"
        for name, value, note in rows
    )
    return f"<dl class='numbers'>{tiles}</dl>"


def panel_html() -> str:
    """Format the tab's own controls: ``assets/live.js`` finds them by their ``data-live``."""
    return f"""
<div class="live-controls">
  <button type="button" class="lg primary" data-live="record">Record</button>
  <button type="button" class="lg secondary" data-live="stop" disabled>Stop</button>
  <label class="level">Loudness <meter data-live="level" min="0" max="1" value="0"></meter></label>
</div>
<div data-live="status">{status_html(READY)}</div>
<div data-live="text">{text_html(None)}</div>
<div data-live="numbers"></div>
<template data-live="placeholder">{text_html(None)}</template>
"""
