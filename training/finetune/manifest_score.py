"""Word error rates of a model, and of an adapter on it, over the rows of manifests.

In: a loaded checkpoint, rows. Out: pairs of reference and hypothesis. Case
and punctuation do not count.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from core.lab import Lab
from training.corpus.manifest import MAX_SECONDS, ManifestRow
from training.finetune.data import waveform_of

AT_ONCE = 8
_NOT_A_WORD = re.compile(r"[^\w' ]+")


def plain_words(text: str) -> str:
    """Reduce a text to lower-case words with single spaces, without punctuation."""
    return " ".join(_NOT_A_WORD.sub(" ", text.lower()).split())


def transcribe_rows(
    lab: Lab,
    rows: Sequence[ManifestRow],
    adapter: str | None = None,
    *,
    lora: bool | None = None,
    max_seconds: float = MAX_SECONDS,
) -> list[tuple[str, str]]:
    """Transcribe every row greedily.

    Args:
        lab: the model.
        rows: of manifests.
        adapter: its name, None for the model's own.
        lora: whether it is on.
        max_seconds: the longest clip allowed.

    Returns:
        (reference, hypothesis) of each, in plain words.
    """
    pairs = []
    for start in range(0, len(rows), AT_ONCE):
        group = rows[start : start + AT_ONCE]
        clips = [waveform_of(row, max_seconds) for row in group]
        found = lab.transcribe_batch(clips, adapter=adapter, lora=lora)
        pairs += [
            (plain_words(row.text), plain_words(transcript.text))
            for row, transcript in zip(group, found, strict=True)
        ]
    return pairs
