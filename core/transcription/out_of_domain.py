"""Out-of-domain audio: how probable it is, from how badly a text fits its sound.

In: the CTC logits of a clip, the words that were written, and a scale that was fitted for the
checkpoint and stands in its ``lab.json``. Out: a probability. A small model writes its own words
for any sound; out-of-domain audio shows as two unsure heads that disagree.

Shapes: T frames, V labels, L labels of the text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from core.checkpoint.catalog import DESCRIPTION_FILE, read_description
from core.checkpoint.catalog import OUTSIDE as KEY
from core.errors import UserError
from core.model.ctc import BLANK
from core.text.alignment import spell
from core.text.transcript import Word

SIGNS = ("ctc_nll", "decoder_nll", "ctc_entropy", "ctc_low_quartile")
_LEAST = 1e-3  # added before a logarithm; probabilities below it are taken for it


@dataclass(frozen=True)
class OutOfDomainScale:
    """A logistic scale. weights: one for each of :data:`SIGNS`. limit: probability that warns."""

    bias: float
    weights: tuple[float, ...]
    limit: float

    def probability(self, signs: Sequence[float]) -> float:
        """Return how likely a clip with these signs is outside the model's domain."""
        value = self.bias + sum(w * s for w, s in zip(self.weights, signs, strict=True))
        return 1.0 / (1.0 + math.exp(-max(-60.0, min(60.0, value))))

    def warns(self, ctc_logits: Tensor, words: Sequence[Word]) -> bool:
        """Return whether a transcript deserves the warning; False where nothing was written."""
        signs = uncertainty_features(ctc_logits, words)
        return signs is not None and self.probability(signs) > self.limit

    def as_dict(self) -> dict[str, Any]:
        """Return what ``lab.json`` holds under "outside"."""
        named = dict(zip(SIGNS, self.weights, strict=True))
        return {"bias": self.bias, "weights": named, "limit": self.limit}


def uncertainty_features(ctc_logits: Tensor, words: Sequence[Word]) -> tuple[float, ...] | None:
    """Compute the logarithms of :data:`SIGNS`; larger means less like the model's domain.

    ``ctc_nll`` is the CTC head's negative log-likelihood of the text per label, ``decoder_nll`` the
    decoder's per word, ``ctc_entropy`` the mean entropy of frames that are not blank, and
    ``ctc_low_quartile`` the mean negative log-probability of the least sure quarter of those.

    Args:
        ctc_logits: [T, V] of the clip.
        words: what was written, with confidences.

    Returns:
        One number per sign, or None where there is no text to judge.
    """
    labels, _ = spell(words, ctc_logits.shape[-1])
    scores = ctc_logits.float().log_softmax(-1).cpu()
    best = scores.max(dim=-1)
    spoken = best.indices != BLANK
    sure = [word.confidence for word in words if word.confidence is not None]
    if not labels or not sure or not spoken.any():
        return None
    unlikely = F.ctc_loss(
        scores[:, None],
        torch.tensor([labels]),
        torch.tensor([scores.shape[0]]),
        torch.tensor([len(labels)]),
        blank=BLANK,
        reduction="sum",
    )
    ctc_nll = min(float(unlikely) / len(labels), -math.log(_LEAST))  # infinite: more than fits
    decoder_nll = -sum(math.log(max(_LEAST, one)) for one in sure) / len(sure)
    ctc_entropy = float(-(scores.exp() * scores).sum(-1)[spoken].mean())
    letters = best.values[spoken].sort().values
    ctc_low_quartile = -float(letters[: max(1, len(letters) // 4)].mean())
    return tuple(
        math.log(_LEAST + sign) for sign in (ctc_nll, decoder_nll, ctc_entropy, ctc_low_quartile)
    )


def read_scale(folder: Path) -> OutOfDomainScale | None:
    """Read the scale of the checkpoint in ``folder``.

    Returns:
        The scale, or None if the checkpoint brings none.

    Raises:
        UserError: a file or a scale that cannot be read.
    """
    file = folder / DESCRIPTION_FILE
    if not file.is_file():
        return None
    described = read_description(file)
    return None if described.get(KEY) is None else parse_scale(described[KEY], file.name)


def parse_scale(raw: Any, source: str) -> OutOfDomainScale:
    """Parse a scale as :meth:`OutOfDomainScale.as_dict` writes it.

    Args:
        raw: from JSON, so anything.
        source: names it in messages.

    Returns:
        The scale.

    Raises:
        UserError: another form, with what was expected.
    """  # noqa: DOC501  (the KeyError never leaves)
    try:
        weights: Mapping[str, float] = raw["weights"]
        if set(weights) != set(SIGNS):
            raise KeyError(sorted(weights))
        ordered = tuple(float(weights[name]) for name in SIGNS)
        scale = OutOfDomainScale(float(raw["bias"]), ordered, float(raw["limit"]))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{source}: {KEY!r} is {raw!r}; expected a bias, a limit and weights of "
            f"{', '.join(SIGNS)}"
        ) from error
    if not all(math.isfinite(value) for value in (scale.bias, scale.limit, *scale.weights)):
        raise UserError(f"{source}: {KEY!r} holds {raw!r}; expected finite numbers")
    return scale
