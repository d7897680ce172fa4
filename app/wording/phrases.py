"""Numbers and states -> words a person reads.

In: transcripts, model summaries, updates. Out: plain text, or HTML where the name ends in
``_html``; everything that came from outside is escaped in it. No Gradio, no torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape

from core.encoder_view import LONGEST_S, EncoderView

HEADING_HTML = (
    "<h1>Granite Speech Lab</h1><p>Hear what a Granite Speech model says, switch compile and LoRA "
    "on and off, and see where every millisecond went.</p>"
)
READY = "Ready. Record something, choose a file, or click an example."
ENCODER_VIEW_NOTE = (
    "The log-mel features, and the letters that the encoder's CTC head reads before the language "
    "model decodes. Drawing runs the encoder once more, over the first 12 seconds."
)
EDIT_NOTE = "You can correct the text here; downloads contain your corrections."
WAITING = "Waiting for the model…"
STOPPING = "Stopping at the next token…"

ASK_NOTE = (
    "A second pass over the text alone, with LoRA off: the language model under the speech model."
)
ASK_EXAMPLES = (
    "The bundled model knows: repeat, tidy up, write in digits, reverse, how many words. "
    "Larger models answer anything."
)
TASKS = {
    "transcribe": "Transcribe",
    "translate": "Translate",
    "instruct": "My own instruction",
    "speakers": "Transcribe, and say who speaks",
    "timestamps": "Transcribe, and time each word",
}
ENGINES = {"eager": "Eager", "compile": "Compiled"}
ENGINE_NOTE = (
    "Eager starts at once. Compiled is faster, at any length, once its graphs are built, which "
    "takes minutes: on a CPU that happens in the background, and answers are eager until then."
)
MODEL_NOTE = "Choose one, or type any Hugging Face repository id or a folder on this machine."
DECODINGS = {
    "greedy": "Greedy",
    "speculative": "Exact drafts",
    "fast-draft": "Fast drafts (lossy)",
    "beam": "Beam search",
    "sample": "Sampling",
}
DECODING_NOTE = (
    "Greedy takes the most likely token each time. Exact drafts give the same text in fewer steps: "
    "the encoder drafts, the language model checks. Fast drafts let likely words pass unchecked, "
    "which may change some. Beam search weighs several texts; sampling picks at random."
)


def switches_html(*, any_model: bool) -> str:
    """Format what the switches do; any_model: whether other models than those listed run here."""
    notes = {"Engine": ENGINE_NOTE, "Decoding": DECODING_NOTE}
    notes |= {"Model": MODEL_NOTE} if any_model else {}
    return definitions_html(notes)


def definitions_html(meanings: Mapping[str, str]) -> str:
    """Format names and what they mean."""
    pairs = (f"<dt>{escape(name)}</dt><dd>{escape(said)}</dd>" for name, said in meanings.items())
    return f"<dl class='definitions'>{''.join(pairs)}</dl>"


def seconds(value: float) -> str:
    """Format a duration: milliseconds below one second."""
    return f"{value:.1f} s" if value >= 1 else f"{1000 * value:.0f} ms"


def clock(value: float) -> str:
    """Format seconds as minutes:seconds, with hours where there are any."""
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def status_html(text: str, kind: str = "") -> str:
    """Format a line that screen readers speak; kind "error" makes it an alert."""
    role = "alert" if kind == "error" else "status"
    return f"<p class='status {kind}' role='{role}'>{escape(text)}</p>"


def aside_html(text: str) -> str:
    """Format a quiet remark under a control."""
    return f"<p class='note aside'>{escape(text)}</p>"


def encoder_view_html(view: EncoderView) -> str:
    """Format what the encoder's CTC head read, beside the picture."""
    read = f"The encoder alone reads: “{view.text}”" if view.text else "It reads no letters."
    cut = f" Only the first {LONGEST_S:.0f} seconds are drawn." if view.cut else ""
    return aside_html(read + cut)


def question(asked: str, text: str) -> str:
    """Join a question and the text it is about: "write in digits: one two"."""
    asked = asked.strip()
    return (
        f"{asked}\n\n{text}" if asked.endswith((".", "?", "!")) else f"{asked.rstrip(':')}: {text}"
    )


def breakable(name: str) -> str:
    """Format a name that a narrow column breaks after its dots, dashes and underscores only."""
    return re.sub(r"([_.-]+)", r"\1<wbr>", escape(name))


def sentence(text: str) -> str:
    """Return the text with a capital letter and a full stop."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
