"""The optimiser of fine-tuning: AdamW in groups, each with its share of the learning rate.

In: named parameters. Out: an object that updates them and keeps its state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

SHARES = (("encoder.", 0.3),)  # the encoder hears already: it should change less
CLIP = 1.0


class Optimiser:
    """AdamW; gradients are clipped to a norm of 1."""

    def __init__(self, named: Mapping[str, nn.Parameter]) -> None:
        self._all = list(named.values())
        groups: dict[float, list[nn.Parameter]] = {}
        for name, parameter in named.items():
            share = next((part for start, part in SHARES if name.startswith(start)), 1.0)
            groups.setdefault(share, []).append(parameter)
        self._inner = torch.optim.AdamW(
            [{"params": part, "share": share} for share, part in sorted(groups.items())],
            betas=(0.9, 0.98),
            weight_decay=0.01,
        )

    def step(self, rate: float) -> None:
        """Update at ``rate`` from the gradients there are, and drop them."""
        nn.utils.clip_grad_norm_(self._all, CLIP)
        for group in self._inner.param_groups:
            group["lr"] = rate * group["share"]
        self._inner.step()
        self._inner.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """The moments."""
        return self._inner.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from moments of :meth:`state_dict`."""
        self._inner.load_state_dict(state)
