"""The optimiser of every stage: Muon for matrices, AdamW for everything else, one learning rate.

In: named parameters. Out: an object that steps both, sets their rate and keeps their state.
On the same batches Muon's loss was about a fifth below AdamW's at the same rate and time per
step (``docs/findings.md``). Its updates are scaled to AdamW's size, so one rate serves both.
Source: Jordan et al. 2024, "Muon"; the scaling is of arXiv 2502.16982.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from core.errors import UserError
from training.stages.distributed import ALONE, ProcessGroup

_MUON: dict[str, Any] = {"lr": 1e-3, "adjust_lr_fn": "match_rms_adamw"}
NOT_MATRICES = ("embed", "rel_pos", "projector.linear")  # tables, and a head with tiny weights
# The projector's last layer has small weights: steps as large as the others' would be mostly
# noise. Encoder layers that are trained on with the projector should change little.
SLOW = (("projector.linear", 0.15), ("encoder.layers", 0.25))


class Optimiser:
    """Muon and AdamW over disjoint parameters, stepped as one."""

    def __init__(
        self,
        named: Iterable[tuple[str, nn.Parameter]],
        slow: Sequence[tuple[str, float]] = SLOW,
    ) -> None:
        """slow: (start of a name, share of the learning rate) of parameters that change less."""
        self._all: list[nn.Parameter] = []
        matrices: dict[float, list[nn.Parameter]] = {}
        others: dict[float, list[nn.Parameter]] = {}
        for name, parameter in named:
            is_matrix = parameter.ndim == 2 and not any(part in name for part in NOT_MATRICES)
            share = next((part for start, part in slow if name.startswith(start)), 1.0)
            (matrices if is_matrix else others).setdefault(share, []).append(parameter)
            self._all.append(parameter)
        self._parts: list[torch.optim.Optimizer] = []
        if matrices:
            muon = torch.optim.Muon(_groups(matrices), weight_decay=0.01, **_MUON)
            self._parts.append(muon)
        if others:
            adamw = torch.optim.AdamW(_groups(others), betas=(0.9, 0.98), weight_decay=0.01)
            self._parts.append(adamw)

    def step(self, loss: torch.Tensor, rate: float, processes: ProcessGroup = ALONE) -> None:
        """Run backward, average gradients over processes, cut their norm to 1, then update."""
        loss.backward()
        processes.average_gradients(self._all)
        nn.utils.clip_grad_norm_(self._all, 1.0)
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = rate * group["share"]
            part.step()
            part.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of both parts."""
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of ``state_dict``.

        Raises:
            UserError: the state is of another optimiser.
        """
        if "parts" not in state or len(state["parts"]) != len(self._parts):
            raise UserError(
                "the checkpoint's optimiser state is of another kind; expected Muon and AdamW: "
                "give its weights with --restart-from and train into an empty folder"
            )
        for part, one in zip(self._parts, state["parts"], strict=True):
            part.load_state_dict(one)


def _groups(by_share: Mapping[float, list[nn.Parameter]]) -> list[dict[str, Any]]:
    """Parameter groups, each with its share of the learning rate."""
    return [{"params": part, "share": share} for share, part in sorted(by_share.items())]
