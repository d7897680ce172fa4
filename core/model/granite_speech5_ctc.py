"""Granite Speech 5.0 TurboCTC: stacked log-mel features -> CTC logits of word pieces.

In: features of a batch and the real rows of each clip. Out: logits at 12.5 Hz and the real length
of each clip there. A conformer with block attention, of which some blocks halve the number of rows;
its middle reads the CTC head and gives the posteriors back, and the same head reads the last block.
Rows past a clip's end never reach a real one, so a clip's logits depend neither on its padding nor
on its batch neighbours. Equal to transformers' ``GraniteSpeech5ForCTC``.

Modules are named as their tensors are stored, so the file needs no table of names.

Shapes: B batch, R feature rows, T rows in a layer (R, then half, then a quarter), D width, C rows
of an attention block, N attention blocks, H heads, d head width, V labels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.model.linear import ACTIVATIONS, Linear
from core.model.shaw_attention import shaw_attention, split_blocks


@dataclass(frozen=True)
class GraniteSpeech5Config:
    """A whole ``granite_speech5_ctc`` checkpoint. Label 0 is blank."""

    input_dim: int
    num_layers: int
    hidden_dim: int
    num_heads: int
    dim_head: int
    feedforward_dim: int
    feedforward_bias: bool
    hidden_act: str
    vocab_size: int
    context_size: int
    max_pos_emb: int
    conv_kernel_size: int
    conv_expansion_factor: int
    subsample_layers: tuple[int, ...]

    @property
    def rows_per_label(self) -> int:
        """Return the feature rows that become one row of logits."""
        return 2 ** len(self.subsample_layers)

    @property
    def min_rows(self) -> int:
        """Return the fewest feature rows to pad to: two rows of logits; one is another graph."""
        return 2 * self.rows_per_label


class CTCOutput(NamedTuple):
    """logits [B, T, V] before softmax, T = R // rows_per_label; lengths [B], real rows of each."""

    logits: Tensor
    lengths: Tensor


class RowMask(NamedTuple):
    """row_is_padding [B, T, 1] and, by attention blocks, key_is_padding [N, 1, 1, C]."""

    row_is_padding: Tensor
    key_is_padding: Tensor


def attention_blocks(length: int, context_size: int) -> tuple[int, int]:
    """Count the attention blocks that ``length`` rows are filled up to, and the rows of one.

    As little as is needed, but under a compiler: there ``length`` is a symbol, and at least two
    blocks that are never filled exactly are one graph for every length.

    Returns:
        Both numbers.
    """
    if torch.compiler.is_compiling():
        return cast(int, torch.sym_max(2, length // context_size + 1)), context_size
    block = min(length, context_size)
    return -(-length // block), block


def row_mask(length: int, lengths: Tensor, context_size: int) -> RowMask:
    """Mask ``length`` rows of which ``lengths`` [B] are real."""
    count, block = attention_blocks(length, context_size)
    padding = torch.arange(count * block, device=lengths.device) >= lengths[:, None]  # [B, n*C]
    return RowMask(padding[:, :length, None], padding.reshape(-1, 1, 1, block))


class MacaronFeedForward(nn.Module):
    """Up, activation, down."""

    def __init__(self, config: GraniteSpeech5Config) -> None:
        super().__init__()
        width, inner, bias = config.hidden_dim, config.feedforward_dim, config.feedforward_bias
        self.linear1 = Linear(width, inner, bias=bias)
        self.linear2 = Linear(inner, width, bias=bias)
        self.activation: Callable[[Tensor], Tensor] = ACTIVATIONS[config.hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        """Transform x [B, T, D]."""
        return self.linear2(self.activation(self.linear1(x)))


class RelativeAttention(nn.Module):
    """Self-attention inside blocks of C rows with relative positions."""

    def __init__(self, config: GraniteSpeech5Config) -> None:
        super().__init__()
        inner = config.num_heads * config.dim_head
        self.num_heads, self.context_size = config.num_heads, config.context_size
        self.q_proj = Linear(config.hidden_dim, inner, bias=False)
        self.k_proj = Linear(config.hidden_dim, inner, bias=False)
        self.v_proj = Linear(config.hidden_dim, inner, bias=False)
        self.o_proj = Linear(inner, config.hidden_dim)
        self.rel_pos_emb = nn.Embedding(2 * config.max_pos_emb + 1, config.dim_head)

    def forward(self, x: Tensor, key_is_padding: Tensor) -> Tensor:
        """Attend inside blocks: x [B, T, D], key_is_padding [N, 1, 1, C] -> [B, T, D]."""
        batch, length, _ = x.shape
        count, block = attention_blocks(length, self.context_size)
        rows = (self.q_proj(x), self.k_proj(x), self.v_proj(x))
        filled = (F.pad(t, (0, 0, 0, count * block - length)) for t in rows)
        q, k, v = (split_blocks(t, block, self.num_heads) for t in filled)  # [N, H, C, d]
        whole, table = block == self.context_size, self.rel_pos_emb.weight
        out = shaw_attention(q, k, v, table, key_is_padding, few_sizes=whole)
        out = out.transpose(1, 2).reshape(batch, count * block, -1)  # [B, n*C, H*d]
        return self.o_proj(out[:, :length])


class Float32BatchNorm(nn.BatchNorm1d):
    """Batch norm that stays in float32, whatever dtype its model is cast to."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x [B, channels, T] of any dtype."""
        return super().forward(x.float()).to(x.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Float32BatchNorm:
        def keep_dtype(tensor: Tensor) -> Tensor:
            changed = fn(tensor)
            same = changed.dtype == tensor.dtype
            return changed if same else tensor.to(device=changed.device)

        super()._apply(keep_dtype, recurse)
        return self


class StridedConvModule(nn.Module):
    """Pointwise GLU, depthwise convolution, batch norm, SiLU, pointwise.

    With a stride of two, T rows become T // 2.
    """

    def __init__(self, config: GraniteSpeech5Config, stride: int) -> None:
        super().__init__()
        inner = config.hidden_dim * config.conv_expansion_factor
        self.stride, self.reach = stride, config.conv_kernel_size // 2
        self.pointwise_lin1 = Linear(config.hidden_dim, 2 * inner)
        self.depthwise_conv = nn.Conv1d(
            inner, inner, config.conv_kernel_size, stride=stride, groups=inner, bias=False
        )
        self.norm = Float32BatchNorm(inner)
        self.pointwise_lin2 = Linear(inner, config.hidden_dim)

    def forward(self, x: Tensor, row_is_padding: Tensor) -> Tensor:
        """Mix neighbouring rows: x [B, T, D] -> [B, T // stride, D]; row_is_padding [B, T, 1]."""
        x = F.glu(self.pointwise_lin1(x), dim=-1).masked_fill(row_is_padding, 0)
        # One row less on the right for a stride of two: T // 2 places, not (T + 1) // 2.
        x = F.pad(x.transpose(1, 2), (self.reach, self.reach + 1 - self.stride))
        x = F.silu(self.norm(self.depthwise_conv(x)))  # [B, inner, T // stride]
        return self.pointwise_lin2(x.transpose(1, 2))


class SubsamplingBlock(nn.Module):
    """Half feed-forward, attention, convolution, half feed-forward, norm (arXiv 2005.08100).

    With a stride of two the convolution and what passes it by keep one row of every two.
    """

    def __init__(self, config: GraniteSpeech5Config, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.norm_feed_forward1 = nn.LayerNorm(config.hidden_dim)
        self.feed_forward1 = MacaronFeedForward(config)
        self.norm_self_att = nn.LayerNorm(config.hidden_dim)
        self.self_attn = RelativeAttention(config)
        self.norm_conv = nn.LayerNorm(config.hidden_dim)
        self.conv = StridedConvModule(config, stride)
        self.norm_feed_forward2 = nn.LayerNorm(config.hidden_dim)
        self.feed_forward2 = MacaronFeedForward(config)
        self.norm_out = nn.LayerNorm(config.hidden_dim)

    def forward(self, x: Tensor, mask: RowMask) -> Tensor:
        """Run the parts of a block: x [B, T, D] -> [B, T // stride, D]."""
        x = x + 0.5 * self.feed_forward1(self.norm_feed_forward1(x))
        x = x + self.self_attn(self.norm_self_att(x), mask.key_is_padding)
        update = self.conv(self.norm_conv(x), mask.row_is_padding)
        x = (x if self.stride == 1 else mean_of_pairs(x)) + update
        x = x + 0.5 * self.feed_forward2(self.norm_feed_forward2(x))
        return self.norm_out(x)


def mean_of_pairs(x: Tensor) -> Tensor:
    """Average pairs of rows: x [B, T, D] -> [B, T // 2, D]; an odd last row is dropped."""
    return (x[:, :-1:2] + x[:, 1::2]) / 2


class SubsamplingConformer(nn.Module):
    """Features -> rows of logits' rate, conditioned on the posteriors of its own middle."""

    def __init__(self, config: GraniteSpeech5Config) -> None:
        super().__init__()
        self.config = config
        self.input_linear = Linear(config.input_dim, config.hidden_dim)
        self.layers = nn.ModuleList(
            SubsamplingBlock(config, stride=2 if index in config.subsample_layers else 1)
            for index in range(config.num_layers)
        )
        self.out = Linear(config.hidden_dim, config.vocab_size)
        self.out_mid = Linear(config.vocab_size, config.hidden_dim)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Encode features [B, R, F] of ``lengths`` [B]: rows [B, T, D] and their lengths [B]."""
        context_size = self.config.context_size
        x = self.input_linear(features)
        mask = row_mask(x.shape[1], lengths, context_size)
        for index, layer in enumerate(self.layers, start=1):
            x = layer(x, mask)
            if layer.stride == 2:
                lengths = lengths // 2  # a row is real if both it was made of are
                mask = row_mask(x.shape[1], lengths, context_size)
            if index == self.config.num_layers // 2:
                x = x + self.out_mid(self.out(x).softmax(dim=-1))
        return x, lengths


class GraniteSpeech5CTC(nn.Module):
    """Granite Speech 5.0 TurboCTC: an encoder and the CTC head in it, nothing else."""

    def __init__(self, config: GraniteSpeech5Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = SubsamplingConformer(config)

    def forward(self, features: Tensor, lengths: Tensor) -> CTCOutput:
        """Compute the logits of a padded batch.

        Args:
            features: [B, R, input_dim], R at least ``config.min_rows``.
            lengths: [B] int64, real rows of each clip.

        Returns:
            Logits at every row, and how many of each clip's are real; others mean nothing.
        """
        rows, lengths = self.encoder(features, lengths)
        return CTCOutput(self.encoder.out(rows), lengths)
