"""A sweep in words: what it does, how far it is, and its table.

In: updates of :mod:`app.service.profiles.sweep`. Out: HTML; all that came from outside is escaped.
No Gradio, no torch.
"""

from __future__ import annotations

from app.service.profiles.sweep import SweepUpdate
from app.wording import phrases
from app.wording.progress import progress_html
from profiling.report.columns import RUN_COLUMNS
from profiling.report.page import Page

NOTE = (
    "Measures every combination of what is chosen, on the recording above and A's model. What "
    "shares length and batch is interleaved and compared in pairs. Finished runs are kept, in the "
    "list of the Profile tab too: after a stop, the same choices measure only what is missing."
)
READY = "Choose one or more in each row, then press Sweep."
LENGTHS = "Seconds, such as 3, 10, 30: the recording is cut or repeated. Empty: as it is."
BATCHES = "How often the recording stands in one pass, such as 1, 8."
STOPPING = "Stopping after this run; finished lengths and batches are kept."
LORA = {"on": None, "off": False}  # on, where there is an adapter
NOT_IN_TABLE = ("id", "machine", "versions", "created", "clip", "model")


def state_html(update: SweepUpdate) -> str:
    """Format how far it is, and what could not be measured."""
    said = phrases.sentence(update.said)
    line = phrases.status_html(said) if update.over else progress_html(said, update.share)
    notes = (f"not measured: {note}" for note in update.notes)
    return line + "".join(phrases.aside_html(phrases.sentence(note)) for note in notes)


def table_html(update: SweepUpdate) -> str:
    """Format a row a run, without what is the same for all."""
    page = Page("", {})
    columns = {key: column for key, column in RUN_COLUMNS.items() if key not in NOT_IN_TABLE}
    order = ("engine", "lora", "decoding", "format", "seconds", "batch")
    first = {key: columns.pop(key) for key in order}
    page.table(update.rows, first | columns)
    return "".join(page.parts)
