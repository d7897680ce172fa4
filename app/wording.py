"""Numbers, states and errors -> words a person reads.

In: transcripts, model cards, updates, exceptions. Out: plain text, or HTML where the name ends in
``_html``; everything that came from outside is escaped in it. No Gradio, no torch.
"""

from __future__ import annotations

from html import escape

from app.updates import NotBegun, Outcome, Paced, Update
from core.hearing import LONGEST_S, Hearing
from core.options import PartialText, PhaseStarted
from core.transcribe import STOPPED
from core.transcript import Transcript
from profiling.figures import PHASE_TITLES, format_ms, with_other

HEADING_HTML = (
    "<h1>Granite Speech Lab</h1><p>Hear what a Granite Speech model says, switch compile and LoRA "
    "on and off, and see where every millisecond went.</p>"
)
READY = "Ready. Record something, choose a file, or click an example."
HEARD_NOTE = (
    "The sound as the model sees it, and the letters its encoder reads on its own, before the "
    "language model writes. Drawing runs the encoder once more, over the first 12 seconds."
)
EDIT_NOTE = "You can correct the text here; downloads take it as it stands."
WAITING = "Waiting for the model…"
STOPPING = "Stopping at the next token…"
STOPPED_WAITING = "Stopped before it began."
CUDA_MEMORY = "OutOfMemoryError"
COMPILE_ERRORS = ("BackendCompilerFailed", "InductorError", "InvalidCxxCompiler", "Unsupported")
UNSURE_BELOW = 0.6  # a word at least this probable is shown without comment
MOST_UNSURE = 5

_DOING = {
    "load": "Loading the model",
    "decode_audio": "Reading the recording",
    "encoder": "Listening",
    "prefill": "Reading the prompt",
    "decode": "Writing",
}
_COMPILING = (
    "; the first compiled run of a length builds its graphs, which can take a minute or two"
)

ASK_NOTE = (
    "A second pass over the text alone, with LoRA off: the language model under the speech model."
)
ASK_EXAMPLES = (
    "The bundled model knows: write in digits, reverse, how many digits. Larger models: anything."
)
TASKS = {
    "transcribe": "Transcribe",
    "translate": "Translate",
    "instruct": "My own instruction",
}
ENGINES = {"eager": "Eager", "compile": "Compiled"}
ENGINE_NOTE = (
    "Eager starts at once. Compiled builds graphs on the first run of a length (up to a minute or "
    "two on a slow machine), then runs faster."
)
DECODINGS = {
    "greedy": "Greedy",
    "speculative": "Exact drafts",
    "fast-draft": "Fast drafts (lossy)",
    "beam": "Beam search",
    "sample": "Sampling",
}
DECODING_NOTE = (
    "Greedy takes the likeliest token each time. Exact drafts give the same text in fewer steps: "
    "the encoder drafts, the language model checks. Fast drafts let likely words pass unchecked, "
    "which may change some. Beam search weighs several texts; sampling rolls dice."
)


def num_bytes(count: int) -> str:
    """Bytes in the largest binary unit that keeps the number readable."""
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def seconds(value: float) -> str:
    """A duration: milliseconds below one second."""
    return f"{value:.1f} s" if value >= 1 else f"{1000 * value:.0f} ms"


def doing(update: Update, *, engine: str) -> str | None:
    """What goes on while a request runs; None where an update changes nothing to say."""
    if isinstance(update, NotBegun):
        return STOPPED_WAITING
    if isinstance(update, PartialText):
        return f"Writing: {count(update.num_tokens, 'token')} so far"
    if isinstance(update, Paced):
        return _how_far(update)
    if not isinstance(update, PhaseStarted) or update.name not in _DOING:
        return None
    compiling = engine == "compile" and update.name in ("encoder", "prefill", "decode")
    return _DOING[update.name] + (_COMPILING if compiling else "") + "…"


def _how_far(update: Paced) -> str:
    total = "" if update.total_s is None else f" of {clock(update.total_s)}"
    left = "" if update.left_s is None else f", about {seconds(max(1, update.left_s))} left"
    return f"Heard {clock(update.done_s)}{total}{left}"


def progress_html(paced: Paced) -> str:
    """How far a long recording has come: words, and a bar where its length is known."""
    line = status_html(_how_far(paced))
    if paced.total_s is None:
        return line
    share = 100 * min(1.0, paced.done_s / max(paced.total_s, 1e-9))
    bar = f"<progress class='bar' max='100' value='{share:.0f}' aria-label='Progress'></progress>"
    return line + bar


def clock(value: float) -> str:
    """Seconds as minutes:seconds, with hours where there are any."""
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def count(number: int, thing: str) -> str:
    """A number with its noun, in the plural where it needs one."""
    ending = "" if number == 1 else "es" if thing.endswith("s") else "s"
    return f"{number} {thing}{ending}"


def summary(outcome: Outcome) -> str:
    """One sentence or two about a finished request."""
    t = outcome.transcript
    spent_s = t.end_to_end_ms / 1000
    if not t.text and t.warnings and STOPPED not in t.warnings:
        return f"{sentence(t.warnings[0])} Looked at {t.audio_s:.1f} s of sound."
    if STOPPED in t.warnings:
        return f"Stopped after {seconds(spent_s)}. What was written by then stays."
    words = f"{t.audio_s:.1f} s of sound became text in {seconds(spent_s)}"
    if t.rtf > 0:
        words += f", {_pace(t.rtf)}"
    if outcome.compile_s > 0:
        words += (
            f". Of that, {seconds(outcome.compile_s)} built compiled graphs; the next is faster"
        )
    if outcome.load_s >= 0.05:
        words += f". Loading the model took {seconds(outcome.load_s)} before that"
    return words + "."


def _pace(rtf: float) -> str:
    return (
        f"{1 / rtf:.1f} times faster than real time" if rtf < 1 else f"{rtf:.1f} times its length"
    )


def figures(outcome: Outcome) -> list[tuple[str, str, str]]:
    """(name, value, what it means) of the numbers beside a transcript."""
    t = outcome.transcript
    rows = [("Real-time factor", f"{t.rtf:.2f}", "time over length; below 1 is faster than speech")]
    if t.time_to_first_token_ms is not None:
        rows.append(("First token", format_ms(t.time_to_first_token_ms), "after the start"))
    if t.new_tokens_per_s is not None:
        rows.append(("Tokens per second", f"{t.new_tokens_per_s:.0f}", "after the first"))
    if t.draft is not None and t.draft.drafted:
        kept = f"{t.draft.accepted} of {t.draft.drafted}"
        rows.append(("Drafts kept", kept, f"in {count(t.draft.passes, 'pass')} of the decoder"))
    if t.peak_memory_bytes:
        on_gpu = (outcome.card.device or "cpu") != "cpu"
        where = "on the device, this run" if on_gpu else "of the whole program"
        rows.append(("Peak memory", num_bytes(t.peak_memory_bytes), where))
    return rows


def figures_html(outcome: Outcome) -> str:
    """The numbers as tiles, and the phase times as a table for those who cannot see the chart."""
    tiles = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(note)}</small></dd></div>"
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
    """The words the model was least sure of; empty where it was sure of all."""
    rated = [(w.confidence, w.text) for w in transcript.words if w.confidence is not None]
    low = sorted(pair for pair in rated if pair[0] < UNSURE_BELOW)[:MOST_UNSURE]
    if not low:
        return ""
    named = ", ".join(f"“{text}” ({100 * sure:.0f} %)" for sure, text in low)
    return f"Least sure of: {named}"


def notes_html(outcome: Outcome, expected: str) -> str:
    """Under the text: warnings, what was really said, and the least sure words."""
    t = outcome.transcript
    told = (STOPPED,) if t.text else t.warnings  # the summary says these
    lines = [("warning", sentence(warning)) for warning in t.warnings if warning not in told]
    if expected:
        lines.append(agreement(expected, t.text))
    if unsure(t):
        lines.append(("aside", unsure(t)))
    return "".join(f"<p class='note {kind}'>{escape(line)}</p>" for kind, line in lines)


def agreement(expected: str, text: str) -> tuple[str, str]:
    """(kind, sentence) that sets what was heard beside what is known to have been said."""
    if expected.casefold().split() == text.casefold().split():
        return "right", f"✓ Exactly what was said: “{expected}”"
    return "aside", f"What was really said: “{expected}”"


def status_html(text: str, kind: str = "") -> str:
    """A line that screen readers speak when it changes; kind "error" makes it an alert."""
    role = "alert" if kind == "error" else "status"
    return f"<p class='status {kind}' role='{role}'>{escape(text)}</p>"


def aside_html(text: str) -> str:
    """A quiet remark under a control."""
    return f"<p class='note aside'>{escape(text)}</p>"


def heard_html(hearing: Hearing) -> str:
    """What the encoder read, as text: the picture's other half."""
    read = f"The encoder alone reads: “{hearing.text}”" if hearing.text else "It reads no letters."
    cut = f" Only the first {LONGEST_S:.0f} seconds are drawn." if hearing.cut else ""
    return aside_html(read + cut)


def failure(error: BaseException) -> str:
    """What went wrong, in words. A caller's mistake speaks for itself; the rest is in the log."""
    if is_callers(error):
        return _first_line(error)
    kind = type(error).__name__
    if isinstance(error, MemoryError) or kind == CUDA_MEMORY:
        return (
            "There was not enough memory for this model and recording; use a shorter recording, "
            "a smaller model, or another device"
        )
    if kind in COMPILE_ERRORS:
        return (
            f"Compiling failed on this machine ({kind}); choose the eager engine. Compiling for a "
            "CPU needs a C++ compiler"
        )
    return f"Something went wrong here, not with your request ({kind}); the log says more"


def is_callers(error: BaseException) -> bool:
    """Whether the message was written for whoever made the request."""
    return isinstance(error, ValueError | FileNotFoundError | IsADirectoryError | PermissionError)


def question(asked: str, text: str) -> str:
    """One message out of a question and the text it is about: "write in digits: one two"."""
    asked = asked.strip()
    return (
        f"{asked}\n\n{text}" if asked.endswith((".", "?", "!")) else f"{asked.rstrip(':')}: {text}"
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def sentence(text: str) -> str:
    """Text with a capital letter and a full stop."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
