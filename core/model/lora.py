"""LoRA: linear layers that can carry an adapter, switched while running.

In: activations and a switch tensor. Out: the layer's output with or without its low-rank update.
The switch is *data* (1 on, 0 off, one value per batch row), so turning LoRA on or off never
changes a compiled graph, and two requests on one model never share state.

Shapes: B batch, T positions, I in features, O out features, r rank.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from core.model.linear import linear


@dataclass(frozen=True)
class LoRAWeights:
    """One layer's adapter. a: [r, I], b: [O, r]; the update is ``scaling * b @ a``."""

    a: Tensor
    b: Tensor
    scaling: float


class AdaptableLinear(nn.Linear):
    """``nn.Linear`` that may carry one adapter (Hu et al. 2021, section 4.1; PEFT's arithmetic)."""

    lora_a: nn.Parameter | None
    lora_b: nn.Parameter | None

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias=bias)
        self.register_parameter("lora_a", None)
        self.register_parameter("lora_b", None)
        self.lora_scaling = 0.0
        self._unmerged: Tensor | None = None

    def forward(self, x: Tensor, lora: Tensor | None = None) -> Tensor:
        """Multiply x [B, T, I]: [B, T, O]; ``lora`` [B, 1, 1] scales the update, None omits it."""
        y = self.base(x)
        if self.lora_a is None or self.lora_b is None or lora is None or self.is_merged:
            return y
        return y + linear(linear(x, self.lora_a), self.lora_b) * (lora * self.lora_scaling)

    def base(self, x: Tensor) -> Tensor:
        """Multiply x [..., I] without the adapter: [..., O]."""
        return linear(x, self.weight, self.bias)

    def check(self, weights: LoRAWeights) -> None:
        """Check that an adapter fits.

        Raises:
            ValueError: the shapes do not fit this layer.
        """
        rank = weights.a.shape[0]
        want_a, want_b = (rank, self.in_features), (self.out_features, rank)
        if tuple(weights.a.shape) != want_a or tuple(weights.b.shape) != want_b:
            raise ValueError(
                f"adapter shapes {tuple(weights.a.shape)} and {tuple(weights.b.shape)} do not fit "
                f"a layer that needs {want_a} and {want_b}"
            )

    def attach(self, weights: LoRAWeights, *, like: Tensor | None = None) -> None:
        """Give the layer its adapter, in the dtype and on the device of ``like`` or the weight.

        Raises:
            ValueError: the shapes do not fit this layer.
        """
        self.check(weights)
        like = self.weight if like is None else like
        self.lora_a = nn.Parameter(weights.a.to(like), requires_grad=False)
        self.lora_b = nn.Parameter(weights.b.to(like), requires_grad=False)
        self.lora_scaling = weights.scaling

    @torch.no_grad()
    def replace(self, weights: LoRAWeights | None) -> None:
        """Put another adapter's values in the place of these; None: an update of zero.

        Addresses, shapes and scaling stay, so compiled code goes on as it is. A smaller rank is
        filled up with zeros, another scaling becomes part of ``b``.

        Raises:
            ValueError: there is no adapter here, or one of too small a rank.
        """
        if self.lora_a is None or self.lora_b is None:
            raise ValueError("this layer has no room for an adapter; attach one first")
        rank = 0 if weights is None else weights.a.shape[0]
        if rank > self.lora_a.shape[0]:
            raise ValueError(f"rank {rank} does not fit into rank {self.lora_a.shape[0]}")
        self.lora_a[rank:].zero_()
        self.lora_b[:, rank:].zero_()
        if weights is not None:
            self.lora_a[:rank].copy_(weights.a)
            ratio = weights.scaling / self.lora_scaling
            self.lora_b[:, :rank].copy_(weights.b if ratio == 1.0 else weights.b.float() * ratio)

    @property
    def has_adapter(self) -> bool:
        """Return whether an adapter is attached (merged or not)."""
        return self.lora_a is not None

    @property
    def is_merged(self) -> bool:
        """Return whether the adapter is folded into the weight."""
        return self._unmerged is not None

    @torch.no_grad()
    def merge(self) -> None:
        """Fold the update into the weight. The original is kept, so :meth:`unmerge` is exact."""
        if self.lora_a is None or self.lora_b is None or self.is_merged:
            return
        self._unmerged = self.weight.detach().clone()
        update = self.lora_b.float() @ self.lora_a.float() * self.lora_scaling
        self.weight.copy_((self.weight.float() + update).to(self.weight.dtype))

    @torch.no_grad()
    def unmerge(self) -> None:
        """Put the original weight back, bit for bit."""
        if self._unmerged is not None:
            self.weight.copy_(self._unmerged)
            self._unmerged = None


def adapted_layers(model: nn.Module) -> Iterator[tuple[str, AdaptableLinear]]:
    """Yield (name, layer) of every layer of ``model`` that carries an adapter."""
    for name, module in model.named_modules():
        if isinstance(module, AdaptableLinear) and module.has_adapter:
            yield name, module


def merge(model: nn.Module) -> None:
    """Fold every adapter into its weight: the fastest form while only audio is served."""
    for _, layer in adapted_layers(model):
        layer.merge()


def unmerge(model: nn.Module) -> None:
    """Undo :func:`merge` exactly."""
    for _, layer in adapted_layers(model):
        layer.unmerge()


def is_merged(model: nn.Module) -> bool:
    """Return whether any adapter of ``model`` is folded into its weight."""
    return any(layer.is_merged for _, layer in adapted_layers(model))


def has_adapter(model: nn.Module) -> bool:
    """Return whether ``model`` carries an adapter."""
    return next(adapted_layers(model), None) is not None


def switch(rows: list[bool], *, like: Tensor) -> Tensor:
    """Make the switch [B, 1, 1] for ``rows`` of on/off, in the dtype and device of ``like``."""
    values = torch.tensor([float(on) for on in rows], dtype=like.dtype, device=like.device)
    return values.reshape(-1, 1, 1)
