"""What the encoder heard: reading the CTC head.

In: CTC logits of one clip. Out: whether there is speech in it at all, and the characters a greedy
reading gives. Label 0 is blank; any other label is a character's code point (3.3, and the bundled
model), for 4.x with Katakana above 255.

Shapes: T frames, V labels.
"""

from __future__ import annotations

from itertools import groupby

from torch import Tensor

BLANK = 0
_KATAKANA_FIRST_LABEL, _KATAKANA_FIRST_CODE = 256, 0x30A1
_LABELS_WITH_KATAKANA = 348


def label_character(label: int) -> str:
    """The character a CTC label stands for."""
    if label >= _KATAKANA_FIRST_LABEL:
        return chr(_KATAKANA_FIRST_CODE + label - _KATAKANA_FIRST_LABEL)
    return chr(label)


def label_of(character: str) -> int | None:
    """The CTC label of a character, or None if no head of this family has one for it."""
    code = ord(character)
    if 0 < code < _KATAKANA_FIRST_LABEL:
        return code
    label = code - _KATAKANA_FIRST_CODE + _KATAKANA_FIRST_LABEL
    return label if _KATAKANA_FIRST_LABEL <= label < _LABELS_WITH_KATAKANA else None


def read_greedily(ctc_logits: Tensor) -> str:
    """The best label of each frame [T, V], repeats merged, blanks dropped (Graves et al. 2006)."""
    labels = ctc_logits.argmax(dim=-1).tolist()
    merged = [label for label, _ in groupby(labels) if label != BLANK]
    return "".join(label_character(label) for label in merged)


def contains_speech(ctc_logits: Tensor) -> bool:
    """Whether any frame of [T, V] prefers a character other than a space to blank."""
    labels = ctc_logits.argmax(dim=-1)
    return bool(((labels != BLANK) & (labels != ord(" "))).any())


def least_sure(ctc_logits: Tensor) -> float:
    """The largest entropy, in nats, of any frame of [T, V]: 0 where every frame is certain."""
    scores = ctc_logits.float().log_softmax(dim=-1)
    entropies = -(scores.exp() * scores).sum(dim=-1)  # [T]
    return float(entropies.max())


def mean_logprob(ctc_logits: Tensor) -> float:
    """Mean log-probability of the best label of each frame of [T, V] that is no blank; 0 if none.

    How sure the head was of what it wrote.
    """
    best = ctc_logits.float().log_softmax(dim=-1).max(dim=-1)
    written = best.values[best.indices != BLANK]
    return float(written.mean()) if written.numel() else 0.0
