"""Greedy reading of CTC heads: characters of the encoder's own, tokens of the BPE head of 4.1.

In: CTC logits of one clip. Out: the characters or token ids of the best labels, whether there is
speech at all, and how sure the head was. Label 0 is blank. Any other label of a character head is a
code point (3.3, and the bundled model), for 4.x with Katakana above 255; label i of a BPE head is
token i - 1. That head pools frames four at a time first, each weighted by how likely it is no
blank. Source: self-speculative decoding with CTC drafts (arXiv 2603.11243).

Shapes: T frames, V labels, W windows, D encoder width, C character labels.
"""

from __future__ import annotations

from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLANK = 0
WINDOW = 4  # frames that a BPE head pools
_NEVER_ZERO = 1e-8
_KATAKANA_FIRST_LABEL, _KATAKANA_FIRST_CODE = 256, 0x30A1
_LABELS_WITH_KATAKANA = 348


def label_character(label: int) -> str:
    """Return the character a CTC label stands for."""
    if label >= _KATAKANA_FIRST_LABEL:
        return chr(_KATAKANA_FIRST_CODE + label - _KATAKANA_FIRST_LABEL)
    return chr(label)


def label_of(character: str) -> int | None:
    """Return the CTC label of a character, or None if no head of this family has one for it."""
    code = ord(character)
    if 0 < code < _KATAKANA_FIRST_LABEL:
        return code
    label = code - _KATAKANA_FIRST_CODE + _KATAKANA_FIRST_LABEL
    return label if _KATAKANA_FIRST_LABEL <= label < _LABELS_WITH_KATAKANA else None


def read_greedily(ctc_logits: Tensor) -> str:
    """Read the best label of each frame [T, V], repeats merged, blanks dropped (Graves 2006)."""
    labels = ctc_logits.argmax(dim=-1).tolist()
    merged = [label for label, _ in groupby(labels) if label != BLANK]
    return "".join(label_character(label) for label in merged)


def contains_speech(ctc_logits: Tensor) -> bool:
    """Check that any frame of [T, V] prefers a character other than a space to blank."""
    labels = ctc_logits.argmax(dim=-1)
    return bool(((labels != BLANK) & (labels != ord(" "))).any())


def least_sure(ctc_logits: Tensor) -> float:
    """Return the largest entropy, in nats, of any frame of [T, V]: 0 where all are certain."""
    scores = ctc_logits.float().log_softmax(dim=-1)
    entropies = -(scores.exp() * scores).sum(dim=-1)  # [T]
    return float(entropies.max())


def mean_logprob(ctc_logits: Tensor) -> float:
    """Average the log-probabilities of the best labels of [T, V] that are no blank.

    Returns:
        How sure the head was of what it wrote; 0 if nothing.
    """
    best = ctc_logits.float().log_softmax(dim=-1).max(dim=-1)
    written = best.values[best.indices != BLANK]
    return float(written.mean()) if written.numel() else 0.0


class BpeHead(nn.Module):
    """A linear layer over pooled frames; row 0 is blank."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)

    def forward(self, frames: Tensor, mid_logits: Tensor) -> Tensor:
        """Score one clip: frames [T, D] and middle logits [T, C] -> logits [W, V + 1]."""
        return F.linear(
            pool(frames, 1 - mid_logits.softmax(dim=-1)[:, BLANK]), self.weight, self.bias
        )


def pool(frames: Tensor, importance: Tensor) -> Tensor:
    """Average every four frames of [T, D], weighted by ``importance`` [T]: means [W, D]."""
    short = -frames.shape[0] % WINDOW
    windows = F.pad(frames, (0, 0, 0, short)).unflatten(0, (-1, WINDOW))  # [W, 4, D]
    return pool_windows(windows, F.pad(importance, (0, short)).unflatten(0, (-1, WINDOW)))


def pool_windows(windows: Tensor, importance: Tensor) -> Tensor:
    """Average each of ``windows`` [W, F, D] by the ``importance`` [W, F] of its frames: [W, D]."""
    weights = importance / (importance.sum(dim=-1, keepdim=True) + _NEVER_ZERO)
    return torch.einsum("wfd,wf->wd", windows, weights)


def read_tokens(logits: Tensor) -> list[int]:
    """Read the best label of each window [W, V + 1] as token ids, without repeats and blanks."""
    labels = logits.argmax(dim=-1).tolist()
    return [label - 1 for label, _ in groupby(labels) if label != BLANK]
