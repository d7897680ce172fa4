"""A transcript beside what was really said: error rates, and the words that differ.

In: both texts and a normaliser's name. Out: HTML; everything that came from outside is escaped in
it. No Gradio, no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from app.wording.evaluation import NORMALIZERS
from app.wording.phrases import aside_html, sentence
from core.text.word_errors import aligned_words, character_errors, word_errors
from core.units import counted
from profiling.evaluate.data import doubts_of, share_no_word
from profiling.evaluate.table import error_rates, with_interval

NOTE = (
    "Give the exact words of the recording, and see which the model got wrong. Nothing is "
    "transcribed again; change the text or the normaliser at any time."
)
NORMALIZER_NOTE = (
    "What does not count as an error: none: nothing; basic: case and punctuation; english: also "
    "spelled numbers, contractions, titles and fillers (close to the Open ASR Leaderboard's)."
)
LEGEND = "Struck out: said, not written. Underlined: written, not said."
OTHER_TEXT = (
    "no word agrees: is this the text of this recording, in the language that the model writes"
)


def reference_html(reference: str, heard: str | None, normalizer: str) -> str:
    """Format how a transcript agrees with its reference.

    Args:
        reference: what was really said; blank where that is not known.
        heard: the transcript; None where there is none yet.
        normalizer: a key of ``core.text.normalizers.NORMALIZERS``.

    Returns:
        HTML; empty without a reference or a transcript.
    """
    if not reference.strip() or heard is None:
        return ""
    errors, num_words = word_errors(reference, heard, normalizer)
    rates = f"{_rates(reference, heard, normalizer)}, normaliser {NORMALIZERS[normalizer]}"
    lines = [sentence(f"the reference is {why}") for why in doubts_of(reference, normalizer)]
    if share_no_word(reference, heard):
        lines.append(sentence(OTHER_TEXT + "?"))
    asides = "".join(f"<p class='note warning'>{escape(line)}</p>" for line in lines)
    if not errors:
        same = f"✓ Same as the reference, {counted(num_words, 'word')}: {rates}."
        return f"<p class='note right'>{escape(same)}</p>{asides}"
    said = f"{counted(errors, 'word error')} in {counted(num_words, 'word')}: {rates}."
    return (
        f"<p class='note'>{escape(said)}</p>{asides}"
        f"<p class='differences'>{differences_html(reference, heard, normalizer)}</p>"
        f"{aside_html(LEGEND)}"
    )


def differences_html(reference: str, heard: str, normalizer: str) -> str:
    """Format the text as it was counted, with what is missing and what is too much."""
    parts = list[str]()
    for run in aligned_words(reference, heard, normalizer):
        if run.said == run.heard:
            parts.append(escape(run.said))
            continue
        parts += [f"<del>{escape(run.said)}</del>"] if run.said else []
        parts += [f"<ins>{escape(run.heard)}</ins>"] if run.heard else []
    return " ".join(parts)


def wer_text(reference: str, heard: str, normalizer: str) -> str:
    """Write one recording's word error rate: "16.7 %"."""
    return _percent(*word_errors(reference, heard, normalizer))


def together(pairs: Sequence[tuple[str, str]], normalizer: str) -> str:
    """Write the rates over several recordings in a sentence.

    Args:
        pairs: of (reference, transcript); at least one.
        normalizer: under which errors are counted.

    Returns:
        The sentence; with intervals where there are enough recordings for them.
    """
    found = error_rates(pairs, normalizer)
    said = ", ".join(
        f"{name} {with_interval(found.get(key), found.get(f'{key}_interval'), 100.0)} %"
        for name, key in (("WER", "wer"), ("CER", "cer"))
    )
    clips = counted(len(pairs), "recording")
    return f"{clips} with a text: {said}, normaliser {NORMALIZERS[normalizer]}."


def _rates(reference: str, heard: str, normalizer: str) -> str:
    counts = (count(reference, heard, normalizer) for count in (word_errors, character_errors))
    return ", ".join(
        f"{name} {_percent(*c)}" for name, c in zip(("WER", "CER"), counts, strict=True)
    )


def _percent(errors: int, total: int) -> str:
    return f"{100 * errors / total:.1f} %" if total else "not defined"
