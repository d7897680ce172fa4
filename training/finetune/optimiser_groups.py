"""The optimiser of fine-tuning: AdamW in groups, each with its share of the learning rate.

In: named parameters. Out: an object that updates them and keeps its state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

# What is trained already should change less than what is new.
SHARES = (("encoder.", 0.25), ("projector.", 0.25))
TABLES = ("decoder.embed_tokens.weight", "decoder.lm_head.weight")
CLIP, DECAY = 1.0, 0.01


class FinetuneOptimiser:
    """AdamW; gradients are clipped to a norm of 1."""

    def __init__(self, named: Mapping[str, nn.Parameter]) -> None:
        self._all = list(named.values())
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in named.items():
            share = next((part for start, part in SHARES if name.startswith(start)), 1.0)
            decay = 0.0 if name in TABLES else DECAY  # rows without a gradient stay as they are
            groups.setdefault((share, decay), []).append(parameter)
        self._inner = torch.optim.AdamW(
            [
                {"params": part, "share": share, "weight_decay": decay}
                for (share, decay), part in sorted(groups.items(), key=lambda item: item[0])
            ],
            betas=(0.9, 0.98),
        )

    def step(self, rate: float) -> None:
        """Update at ``rate`` from the gradients there are, and drop them."""
        nn.utils.clip_grad_norm_(self._all, CLIP)
        for group in self._inner.param_groups:
            group["lr"] = rate * group["share"]
        self._inner.step()
        self._inner.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """Return the moments."""
        return self._inner.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from moments of :meth:`state_dict`."""
        self._inner.load_state_dict(state)
