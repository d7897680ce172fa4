"""The one progress line of the page: what is done of what, a bar, and the time left in words.

In: updates of a request, or a share and seconds. Out: plain text, or HTML where the name ends in
``_html``; everything that came from outside is escaped in it. No Gradio, no torch.
"""

from __future__ import annotations

from html import escape

from app.service.updates import (
    CancelledBeforeStart,
    EagerMeanwhile,
    QueuePlace,
    TranscriptionProgress,
    Update,
)
from app.service.worker import MEASUREMENT, OTHER, TRANSCRIPTION
from app.wording.phrases import clock, sentence, status_html
from core.builder_process import RATHER
from core.transcription.options import PartialText, PhaseStarted
from core.units import counted

STOPPED_WAITING = "Stopped before it began."
COMPILING = "; the first compiled run builds its graphs, which can take a minute or two"
_DOING = {
    "load": "Loading the model",
    "decode_audio": "Reading the recording",
    "encoder": "Listening",
    "draft": "Drafting",
    "edit": "Editing the draft",
    "prefill": "Reading the prompt",
    "decode": "Writing",
}


_RUNNING = {
    TRANSCRIPTION: "Another recording is being transcribed",
    MEASUREMENT: "A measurement runs, which nothing may disturb",
    OTHER: "The model is at work",
}
GIVES_WAY = "A measurement runs; this request goes between two of its blocks"


class ProgressLine:
    """The status line of one transcription.

    Once a long recording has said how far it is, nothing else changes the line: phases and tokens
    begin anew with every part of it.
    """

    def __init__(self, engine: str) -> None:
        self._compiling, self._paced = engine == "compile", False

    def html(self, update: Update) -> str | None:
        """Return what the line shows from now on; None where it stays."""
        if isinstance(update, TranscriptionProgress):
            self._paced = True
            share = None if not update.total_s else update.done_s / update.total_s
            return progress_html(_how_far(update), share, update.left_s)
        if isinstance(update, QueuePlace):
            return waiting_html(update)
        if isinstance(update, CancelledBeforeStart):
            return status_html(STOPPED_WAITING)
        if self._paced:
            return None
        if isinstance(update, EagerMeanwhile):
            self._compiling = False
            return progress_html(sentence(f"{update.status}; {RATHER}"))
        if isinstance(update, PartialText):
            return progress_html(f"Writing: {counted(update.num_tokens, 'token')} so far")
        if not isinstance(update, PhaseStarted) or update.name not in _DOING:
            return None
        built = self._compiling and update.name in ("encoder", "edit", "prefill", "decode")
        return progress_html(_DOING[update.name] + (COMPILING if built else "") + "…")


def waiting_html(place: QueuePlace) -> str:
    """Format where a request waits, what runs meanwhile, and how long that still takes."""
    running = GIVES_WAY if place.between else _RUNNING[place.running]
    said = f"Waiting: {counted(place.ahead, 'request')} before this one. {running}"
    return progress_html(said, left_s=place.left_s)


def progress_html(text: str, share: float | None = None, left_s: float | None = None) -> str:
    """Format progress.

    Args:
        text: what is done, and of how much.
        share: 0 to 1; None where it is unknown: the bar then only moves.
        left_s: seconds left; None where nothing is known.

    Returns:
        A line that screen readers speak, with a bar.
    """
    left = "" if left_s is None else f", {time_left(left_s)}"
    percent = None if share is None else round(100 * min(1.0, max(0.0, share)))
    value = "" if percent is None else f" value='{percent}'"
    return (
        f"<div class='status' role='status'>{escape(text + left)}"
        f"<progress max='100'{value} aria-label='Progress'></progress></div>"
    )


def time_left(seconds: float) -> str:
    """Say how long something still takes, no finer than an estimate is."""
    if seconds < 3:
        return "almost done"
    if seconds < 50:
        step = 1 if seconds < 10 else 5
        return f"about {step * round(seconds / step)} seconds left"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"about {counted(max(1, minutes), 'minute')} left"
    hours, minutes = divmod(minutes, 60)
    return f"about {hours} h {minutes:02} min left"


def _how_far(update: TranscriptionProgress) -> str:
    if update.total_s is None:
        return f"{clock(update.done_s)} transcribed so far"
    return f"{clock(update.done_s)} of {clock(update.total_s)} transcribed"
