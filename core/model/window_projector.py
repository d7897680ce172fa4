"""Projector of Granite Speech NAR: states of several encoder layers -> audio embeddings.

In: windows of frames, each the kept states of the encoder side by side, and which frames are real.
Out: ``num_queries`` embeddings a window. Every state has a norm of its own; a query begins as the
mean of the frames it stands for, and attends to its window only. No frame sees another window, and
frames that are not real are zeros behind the first activation.

Modules are named as their tensors are stored.

Shapes: W windows, F frames of one, n states, D encoder width, X width, Q queries, H heads, d head
width, E decoder width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.model.linear import Linear


@dataclass(frozen=True)
class WindowProjectorConfig:
    """``window_size`` frames of ``num_states`` encoder states in, ``num_queries`` rows out."""

    encoder_size: int
    num_states: int
    hidden_size: int
    num_layers: int
    num_heads: int
    mlp_size: int
    layer_norm_eps: float
    attention_bias: bool
    mlp_bias: bool
    window_size: int
    downsample_rate: int
    output_size: int

    @property
    def num_queries(self) -> int:
        """Return the audio embeddings made of one window."""
        return self.window_size // self.downsample_rate


class WindowAttention(nn.Module):
    """Multi-head attention from queries to the frames of their window."""

    def __init__(self, config: WindowProjectorConfig) -> None:
        super().__init__()
        width, bias = config.hidden_size, config.attention_bias
        self.num_heads = config.num_heads
        self.q_proj = Linear(width, width, bias=bias)
        self.k_proj = Linear(width, width, bias=bias)
        self.v_proj = Linear(width, width, bias=bias)
        self.o_proj = Linear(width, width, bias=bias)

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """Attend from x [W, Q, X] to source [W, F, X]: [W, Q, X]."""
        rows = (self.q_proj(x), self.k_proj(source), self.v_proj(source))
        q, k, v = (t.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for t in rows)
        out = F.scaled_dot_product_attention(q, k, v)  # [W, H, Q, d]
        return self.o_proj(out.transpose(1, 2).flatten(2))


class WindowMLP(nn.Module):
    """Up, SiLU, down."""

    def __init__(self, config: WindowProjectorConfig) -> None:
        super().__init__()
        self.fc1 = Linear(config.hidden_size, config.mlp_size, bias=config.mlp_bias)
        self.fc2 = Linear(config.mlp_size, config.hidden_size, bias=config.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        """Transform x [W, Q, X]."""
        return self.fc2(F.silu(self.fc1(x)))


class WindowLayer(nn.Module):
    """Norm, attention, norm, MLP, each added to what came."""

    def __init__(self, config: WindowProjectorConfig) -> None:
        super().__init__()
        self.attn_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.cross_attention = WindowAttention(config)
        self.mlp_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = WindowMLP(config)

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """Attend and transform: x [W, Q, X], source [W, F, X] -> [W, Q, X]."""
        x = x + self.cross_attention(self.attn_norm(x), source)
        return x + self.mlp(self.mlp_norm(x))


class WindowQFormer(nn.Module):
    """A stack of layers."""

    def __init__(self, config: WindowProjectorConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(WindowLayer(config) for _ in range(config.num_layers))

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """Run all layers: x [W, Q, X], source [W, F, X] -> [W, Q, X]."""
        for layer in self.layers:
            x = layer(x, source)
        return x


class WindowProjector(nn.Module):
    """Norms of the states, a Q-Former a window, and the layer into the decoder's width."""

    def __init__(self, config: WindowProjectorConfig) -> None:
        super().__init__()
        width, eps = config.hidden_size, config.layer_norm_eps
        self.layer_norms = nn.ModuleList(
            nn.LayerNorm(config.encoder_size, eps=eps) for _ in range(config.num_states)
        )
        self.layer_projector = Linear(config.num_states * config.encoder_size, width)
        self.query = nn.Parameter(torch.randn(1, config.num_queries, width))
        self.window_positions = nn.Parameter(torch.randn(1, config.window_size, width))
        self.qformer = WindowQFormer(config)
        self.out_norm = nn.LayerNorm(width, eps=eps)
        self.out_linear = Linear(width, config.output_size)

    def forward(self, windows: Tensor, frame_is_real: Tensor) -> Tensor:
        """Project windows [W, F, n*D] with frame_is_real [W, F, 1] as numbers: [W, Q, E]."""
        states = windows.chunk(len(self.layer_norms), dim=-1)
        normed = [norm(state) for norm, state in zip(self.layer_norms, states, strict=True)]
        x = F.gelu(self.layer_projector(torch.cat(normed, dim=-1))) * frame_is_real  # [W, F, X]
        means = x.unflatten(1, (self.query.shape[1], -1)).mean(dim=2)  # [W, Q, X]
        x = self.qformer(self.query + means, x + self.window_positions)
        return self.out_linear(self.out_norm(x))
