"""An evaluation in words: progress, what was left out, and the table that fills.

In: updates of :mod:`app.service.evaluation`. Out: HTML; all that came from outside is escaped. No
Gradio, no torch.
"""

from __future__ import annotations

from html import escape

from app.service.evaluation import EvaluationUpdate
from app.wording import phrases
from profiling.evaluate.page import MEANING
from profiling.evaluate.table import COLUMNS, written

READY = (
    "Drop recordings and their texts, or take the bundled examples; choose variants, then press "
    "Evaluate. Each variant gets its error rates, speed and memory, with 95 % intervals."
)
FILES = (
    "Beside each recording a .txt of the same name, or one manifest (jsonl or csv with "
    "audio_filepath and text) for all. Without files: the bundled examples."
)
STOPPING = "Stopping after this pass; what was done is kept."
NOT_BEGUN = "Stopped before it began."
NOTE = MEANING + (
    " The normaliser says what does not count as an error: nothing (none), case and punctuation "
    "(basic), or also spelled numbers, contractions, titles and fillers (english; close to the "
    "Open ASR Leaderboard's, without its table of spellings)."
)
NORMALIZERS = {"none": "none", "basic": "basic", "english": "english"}
PRESETS = {
    "": "eager, greedy",
    "engine=compile": "compiled",
    "lora=off": "LoRA off",
    "decoding=speculative": "exact drafts",
    "decoding=fast-draft": "fast drafts",
    "quantize=int8": "int8 weights",
    "batch=8": "batches of 8",
}


def state_html(update: EvaluationUpdate) -> str:
    """Format progress, and what makes the figures doubtful."""
    said = escape(phrases.sentence(update.said))
    bar = ""
    if not update.over:
        share = round(100 * update.share)
        bar = f"<progress max='100' value='{share}' aria-label='Progress'>{share} %</progress>"
    asides = "".join(phrases.aside_html(phrases.sentence(text)) for text in update.warnings)
    return f"<div class='status' role='status'>{said}{bar}</div>{asides}"


def table_html(update: EvaluationUpdate) -> str:
    """Format a row a variant, without the columns that nothing is known of."""
    cells = [written(row) for row in update.rows]
    keys = [key for key in COLUMNS if any(line[key] for line in cells)]
    head = "".join(f"<th scope='col'>{escape(COLUMNS[key])}</th>" for key in keys)
    body = "".join(
        f"<tr><th scope='row'>{escape(line['variant'])}</th>"
        + "".join(f"<td>{escape(line[key])}</td>" for key in keys[1:])
        + "</tr>"
        for line in cells
    )
    return (
        "<div class='scroll' tabindex='0' role='region' aria-label='Variants'>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
