"""The optimiser of every stage: Muon for matrices, AdamW for everything else, one learning rate.

In: named parameters. Out: an object that steps both, sets their rate and keeps their state.
On the same batches Muon's loss was about a quarter below AdamW's at the same rate and time per
step (``docs/findings.md``). Its updates are scaled to AdamW's size, so one rate serves both.
Source: Jordan et al. 2024, "Muon"; the scaling is of arXiv 2502.16982.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

NOT_MATRICES = ("embed", "rel_pos", "projector.linear")  # tables, and a head with tiny weights


class Optimiser:
    """Muon and AdamW over disjoint parameters, stepped as one."""

    def __init__(self, named: Iterable[tuple[str, nn.Parameter]]) -> None:
        matrices, others = [], []
        self._slow: list[nn.Parameter] = []
        for name, parameter in named:
            if name.startswith("projector.linear"):
                self._slow.append(parameter)
            elif parameter.ndim == 2 and not any(part in name for part in NOT_MATRICES):
                matrices.append(parameter)
            else:
                others.append(parameter)
        # The projector's last layer: steps as large as the others' would be mostly noise.
        groups = [{"params": others, "share": 1.0}, {"params": self._slow, "share": 0.15}]
        self._parts: list[torch.optim.Optimizer] = []
        if matrices:
            muon = torch.optim.Muon(
                matrices, lr=1e-3, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"
            )
            muon.param_groups[0]["share"] = 1.0
            self._parts.append(muon)
        kept = [group for group in groups if group["params"]]
        if kept:
            self._parts.append(
                torch.optim.AdamW(kept, lr=0.0, betas=(0.9, 0.98), weight_decay=0.01)
            )
        self._all = [*matrices, *others, *self._slow]

    def step(self, loss: torch.Tensor, rate: float) -> None:
        """Backward, clip the gradient's norm to 1, update at ``rate``, drop the gradients."""
        loss.backward()
        nn.utils.clip_grad_norm_(self._all, 1.0)
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = rate * group["share"]
            part.step()
            part.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """The state of both parts."""
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of ``state_dict``.

        Raises:
            ValueError: the state is of another optimiser.
        """
        if "parts" not in state or len(state["parts"]) != len(self._parts):
            raise ValueError(
                "the checkpoint's optimiser state is of another kind; expected Muon and AdamW: "
                "give its weights with --restart-from and train into an empty folder"
            )
        for part, one in zip(self._parts, state["parts"], strict=True):
            part.load_state_dict(one)
