"""Learning rates and how hard the augmentation is, as functions of the step."""

from __future__ import annotations

import math


def cosine(step: int, steps: int, warmup: int, peak: float) -> float:
    """Compute a learning rate: linear warm-up, then half a cosine down to a fiftieth.

    Args:
        step: from 0.
        steps: of the run.
        warmup: steps until the peak.
        peak: the highest rate.

    Returns:
        The step's rate.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return peak * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done))))


def augmentation_strength(step: int, steps: int) -> float:
    """Compute the augmentation's strength: 0.1 at first, 1 from the half of the run on."""
    return min(1.0, 0.1 + 0.9 * step / max(1.0, 0.5 * steps))
