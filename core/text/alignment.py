"""When each word was said: forced alignment of the text to the CTC head's posteriors.

In: CTC logits of one clip and the words of its transcript. Out: for each word the frames it spans,
or None for words none of whose characters the head knows. The alignment is the best path through
blank-separated labels, found by torchaudio (Graves et al. 2006, section 4.1).

Shapes: T frames, V labels, L labels of the text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor
from torchaudio.functional import forced_align, merge_tokens

from core.model.ctc import BLANK, label_of
from core.text.transcript import Word


def align_words(
    words: Sequence[Word],
    ctc_logits: Tensor,
    seconds_per_frame: float,
    *,
    audio_s: float = math.inf,
) -> list[Word]:
    """Give words their start and end in seconds.

    Args:
        words: in order; their text is matched without case or punctuation.
        ctc_logits: [T, V] of the clip the words were heard in.
        seconds_per_frame: what one row of ``ctc_logits`` stands for.
        audio_s: length of the clip; its last frame reaches beyond it.

    Returns:
        The same words; those that cannot be placed keep None.
    """
    labels, owners = spell(words, ctc_logits.shape[-1])
    frames = best_frames(ctc_logits.float().log_softmax(-1).cpu(), labels)
    if frames is None:
        return list(words)
    timed = list(words)
    for number in dict.fromkeys(owner for owner in owners if owner is not None):
        mine = [frames[i] for i, owner in enumerate(owners) if owner == number]
        frames_of_word = mine[0][0], mine[-1][1]
        start, end = (min(frame * seconds_per_frame, audio_s) for frame in frames_of_word)
        timed[number] = replace(words[number], start=start, end=end)
    return timed


def spell(words: Sequence[Word], num_labels: int) -> tuple[list[int], list[int | None]]:
    """Spell words in CTC labels, spaces between; returns each label's word too (None: space)."""
    labels: list[int] = []
    owners: list[int | None] = []
    for number, word in enumerate(words):
        spelling = [label_of(c) for c in word.text.lower() if c.isalnum() or c == "'"]
        known = [label for label in spelling if label is not None and label < num_labels]
        if known and labels:
            labels.append(ord(" "))
            owners.append(None)
        labels += known
        owners += [number] * len(known)
    return labels, owners


def best_frames(log_probs: Tensor, labels: Sequence[int]) -> list[tuple[int, int]] | None:
    """Find the first and one-past-last frame of each label on the best path.

    Args:
        log_probs: [T, V] float32 on the CPU.
        labels: L labels without blanks.

    Returns:
        A pair of frames a label; None if they do not fit.
    """
    repeats = sum(a == b for a, b in pairwise(labels))
    if not labels or log_probs.shape[0] < len(labels) + repeats:
        return None  # a repeated label needs a blank before it
    path, scores = forced_align(log_probs[None], torch.tensor([list(labels)]), blank=BLANK)
    return [(span.start, span.end) for span in merge_tokens(path[0], scores[0], blank=BLANK)]
