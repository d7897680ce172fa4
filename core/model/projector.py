"""Projector: encoder frames -> audio embeddings for the decoder, window by window.

In: encoder frames, zero past each clip. Out: ``window_size // downsample_rate`` embeddings for each
window of ``window_size`` frames, made by a small Q-Former whose learned queries look at that window
only (BLIP-2, arXiv 2301.12597; transformers ``Blip2QFormerModel`` inside
``GraniteSpeechEncoderProjector``). A last partial window is filled with zero frames, unmasked, as
the model was trained.

Shapes: B batch, T frames, D encoder width, W windows, F frames of a window, Q queries,
H heads, d head width, P Q-Former width, E decoder width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.model.config import ProjectorConfig
from core.model.linear import ACTIVATIONS
from core.model.lora import AdaptableLinear


def split_into_windows(frames: Tensor, window: int) -> Tensor:
    """Cut ``frames`` [B, T, D] into [B*W, F, D], zero-padding the last window."""
    if frames.ndim != 3:
        raise ValueError(f"expected frames [B, T, D], got shape {tuple(frames.shape)}")
    frames = F.pad(frames, (0, 0, 0, -frames.shape[1] % window))  # [B, W*F, D]
    return frames.reshape(-1, window, frames.shape[-1])  # [B*W, F, D]


class CrossAttention(nn.Module):
    """Multi-head attention, output projection, residual, norm after (BERT's order)."""

    def __init__(self, config: ProjectorConfig, source_size: int) -> None:
        super().__init__()
        width = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.query = AdaptableLinear(width, width)
        self.key = AdaptableLinear(source_size, width)
        self.value = AdaptableLinear(source_size, width)
        self.dense = AdaptableLinear(width, width)
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, source: Tensor, lora: Tensor | None) -> Tensor:
        """Attend from x [B*W, Q, P] to source [B*W, S, *]: [B*W, Q, P]."""
        q = self._heads(self.query(x, lora))  # [B*W, H, Q, d]
        k, v = self._heads(self.key(source, lora)), self._heads(self.value(source, lora))
        out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)  # [B*W, Q, P]
        return self.norm(x + self.dropout(self.dense(out, lora)))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class QFormerLayer(nn.Module):
    """Queries look at each other, then at the window (if this layer crosses), then transform."""

    def __init__(self, config: ProjectorConfig, *, crosses: bool) -> None:
        super().__init__()
        width = config.hidden_size
        self.attention = CrossAttention(config, width)
        self.crossattention = (
            CrossAttention(config, config.encoder_hidden_size) if crosses else None
        )
        self.up = AdaptableLinear(width, config.intermediate_size)
        self.down = AdaptableLinear(config.intermediate_size, width)
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.dropout)
        self.act = ACTIVATIONS[config.hidden_act]

    def forward(self, x: Tensor, window: Tensor, lora: Tensor | None) -> Tensor:
        """Attend and transform: x [B*W, Q, P], window [B*W, F, D] -> [B*W, Q, P]."""
        x = self.attention(x, x, lora)
        if self.crossattention is not None:
            x = self.crossattention(x, window, lora)
        return self.norm(x + self.dropout(self.down(self.act(self.up(x, lora)), lora)))


class Projector(nn.Module):
    """Windowed Q-Former and the linear layer into the decoder's width."""

    def __init__(self, config: ProjectorConfig) -> None:
        super().__init__()
        self.config = config
        self.query = nn.Parameter(torch.randn(1, config.num_queries, config.hidden_size))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.layers = nn.ModuleList(
            QFormerLayer(config, crosses=index % config.cross_attention_frequency == 0)
            for index in range(config.num_hidden_layers)
        )
        self.linear = AdaptableLinear(config.hidden_size, config.output_size)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, frames: Tensor, lora: Tensor | None = None) -> Tensor:
        """Project frames [B, T, D] window by window.

        ``lora`` [B, 1, 1] switches an adapter on these layers, should one name them.

        Returns:
            Audio embeddings [B, W*Q, E] for W = ceil(T / window) windows.
        """
        windows = split_into_windows(frames, self.config.window_size)  # [B*W, F, D]
        per_clip = windows.shape[0] // frames.shape[0]
        rows = None if lora is None else lora.repeat_interleave(per_clip, dim=0)  # [B*W, 1, 1]
        x = self.dropout(self.norm(self.query)).expand(windows.shape[0], -1, -1)  # [B*W, Q, P]
        for layer in self.layers:
            x = layer(x, windows, rows)
        return self.linear(x, rows).reshape(frames.shape[0], -1, self.config.output_size)
