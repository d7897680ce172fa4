"""Conformer encoder: stacked log-mel features -> encoder frames and character CTC logits.

In: features of a batch and the real length of each clip. Out: frames (zero past each clip) and the
CTC logits of the middle and of the last layer. Where the config names hidden layers, a frame is
their states and then the last one; index k is the state that layer k + 1 receives, 0 that of the
first, so the middle's has its posteriors in it. Frames past a clip's end never reach a real frame:
attention masks them as keys and the depthwise convolution reads zeros there, so a clip's result
depends neither on its padding nor on its batch neighbours, and equals the reference (transformers
``GraniteSpeechCTCEncoder``) run on that clip alone. Only attention needs whole blocks, and fills up
the last one by itself; everything else is computed for T frames.

Shapes: B batch, T frames, D width, n states kept besides the last, C frames of an attention
block, N = B * ceil(T / C) blocks, H heads, d head width, V CTC labels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.model.config import EncoderConfig
from core.model.lora import AdaptableLinear
from core.model.shaw_attention import shaw_attention, split_blocks


class EncoderOutput(NamedTuple):
    """frames [B, T, (n + 1) * D]; ctc_logits and mid_ctc_logits [B, T, V], before softmax."""

    frames: Tensor
    ctc_logits: Tensor
    mid_ctc_logits: Tensor


class FeedForward(nn.Module):
    """Macaron half-step: norm, up, SiLU, down."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        inner = config.hidden_dim * config.feedforward_mult
        self.pre_norm = nn.LayerNorm(config.hidden_dim)
        self.up_proj = AdaptableLinear(config.hidden_dim, inner)
        self.down_proj = AdaptableLinear(inner, config.hidden_dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, lora: Tensor | None) -> Tensor:
        """Transform x [B, T, D]."""
        inner = self.dropout(F.silu(self.up_proj(self.pre_norm(x), lora)))
        return self.dropout(self.down_proj(inner, lora))


class BlockAttention(nn.Module):
    """Self-attention inside blocks of C frames; see ``core.model.shaw_attention``."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        inner = config.num_heads * config.dim_head
        self.num_heads, self.context_size = config.num_heads, config.context_size
        self.pre_norm = nn.LayerNorm(config.hidden_dim)
        self.to_q = AdaptableLinear(config.hidden_dim, inner, bias=False)
        self.to_kv = AdaptableLinear(config.hidden_dim, 2 * inner, bias=False)
        self.to_out = AdaptableLinear(inner, config.hidden_dim)
        self.rel_pos_emb = nn.Embedding(2 * config.max_pos_emb + 1, config.dim_head)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, padding: Tensor, lora: Tensor | None) -> Tensor:
        """Attend inside blocks: x [B, T, D], padding [B, n, C] -> [B, T, D]."""
        batch, length, _ = x.shape
        blocks, block = padding.shape[1:]
        x = self.pre_norm(x)
        key, value = self.to_kv(x, lora).chunk(2, dim=-1)
        rows = [self.to_q(x, lora), key, value]
        several = blocks > 1  # then rows come by whole blocks
        if several:
            rows = [_filled_up(t, blocks * block) for t in rows]
        q, k, v = (split_blocks(t, block, self.num_heads) for t in rows)  # [N, H, C, d]
        table, key_is_padding = self.rel_pos_emb.weight, padding.flatten(0, 1)[:, None, None]
        out = shaw_attention(q, k, v, table, key_is_padding, few_sizes=several)
        out = out.transpose(1, 2).reshape(batch, blocks * block, -1)
        out = _first(out, length) if several else out  # [B, T, H*d]
        return self.dropout(self.to_out(out, lora))


# A compiler asks of padding and of slices whether they change anything, and makes a graph for each
# answer. It asks nothing of an index.
def _filled_up(rows: Tensor, size: int) -> Tensor:
    """Fill rows [B, T, D] up with zeros: [B, size, D]."""
    if not torch.compiler.is_compiling():
        return F.pad(rows, (0, 0, 0, size - rows.shape[1]))
    places, last = torch.arange(size, device=rows.device), rows.shape[1] - 1
    return rows.index_select(1, places.clamp(max=last)) * (places <= last)[:, None].to(rows.dtype)


def _first(rows: Tensor, length: int) -> Tensor:
    """Take the first rows of [B, ..., D]: [B, length, D]."""
    if not torch.compiler.is_compiling():
        return rows[:, :length]
    return rows.index_select(1, torch.arange(length, device=rows.device))


class DepthwiseConv(nn.Module):
    """Depthwise convolution over time, zero-padded to keep the length."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.padding = (kernel // 2, kernel // 2 - (kernel + 1) % 2)
        self.conv = nn.Conv1d(channels, channels, kernel, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x [B, channels, T] over time."""
        return self.conv(F.pad(x, self.padding))


class ConvModule(nn.Module):
    """Norm, pointwise GLU, depthwise convolution, batch norm, SiLU, pointwise.

    The reference stores its pointwise layers as convolutions of width one; here they are linear
    layers (``core.checkpoint.weights`` drops the third dimension), which need no transposes.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        inner = config.hidden_dim * config.conv_expansion_factor
        self.norm = nn.LayerNorm(config.hidden_dim)
        self.up_conv = AdaptableLinear(config.hidden_dim, 2 * inner)
        self.depth_conv = DepthwiseConv(inner, config.conv_kernel_size)
        self.batch_norm = nn.BatchNorm1d(inner)
        self.down_conv = AdaptableLinear(inner, config.hidden_dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, frame_is_real: Tensor, lora: Tensor | None) -> Tensor:
        """Mix neighbouring frames: x [B, T, D], frame_is_real [B, T, 1] -> [B, T, D]."""
        x = F.glu(self.up_conv(self.norm(x), lora), dim=-1) * frame_is_real  # [B, T, inner]
        x = F.silu(self.batch_norm(self.depth_conv(x.transpose(1, 2))))  # [B, inner, T]
        return self.dropout(self.down_conv(x.transpose(1, 2), lora))


class ConformerBlock(nn.Module):
    """Half feed-forward, attention, convolution, half feed-forward, norm (arXiv 2005.08100)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.ff1 = FeedForward(config)
        self.attn = BlockAttention(config)
        self.conv = ConvModule(config)
        self.ff2 = FeedForward(config)
        self.post_norm = nn.LayerNorm(config.hidden_dim)

    def forward(
        self, x: Tensor, frame_is_real: Tensor, padding: Tensor, lora: Tensor | None
    ) -> Tensor:
        """Run the five parts of a block.

        Args:
            x: [B, T, D].
            frame_is_real: [B, T, 1].
            padding: [B, n, C], True where there is no frame.
            lora: [B, 1, 1] adapter switch, or None.

        Returns:
            [B, T, D].
        """
        x = x + 0.5 * self.ff1(x, lora)
        x = x + self.attn(x, padding, lora)
        x = x + self.conv(x, frame_is_real, lora)
        x = x + 0.5 * self.ff2(x, lora)
        return self.post_norm(x)


LayerRunner = Callable[..., Tensor]  # with the arguments of call_layer


def call_layer(
    layer: ConformerBlock,
    x: Tensor,
    frame_is_real: Tensor,
    padding: Tensor,
    lora: Tensor | None,
) -> Tensor:
    """Call a layer as it is.

    Args:
        layer: the layer.
        x: [B, T, D].
        frame_is_real: [B, T, 1].
        padding: [B, n, C], True where there is no frame.
        lora: [B, 1, 1] adapter switch, or None.

    Returns:
        [B, T, D].
    """
    return layer(x, frame_is_real, padding, lora)


class ConformerEncoder(nn.Module):
    """Features -> encoder frames, conditioning itself on its own mid-layer CTC posteriors."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.input_linear = AdaptableLinear(config.input_dim, config.hidden_dim)
        self.layers = nn.ModuleList(ConformerBlock(config) for _ in range(config.num_layers))
        self.out = AdaptableLinear(config.hidden_dim, config.output_dim)
        self.out_mid = AdaptableLinear(config.output_dim, config.hidden_dim)

    def forward(
        self,
        features: Tensor,
        lengths: Tensor,
        lora: Tensor | None = None,
        run_layer: LayerRunner = call_layer,
        padding: Tensor | None = None,
    ) -> EncoderOutput:
        """Encode a padded batch.

        Args:
            features: [B, T, input_dim], any T.
            lengths: [B] int64, real frames of each clip.
            lora: [B, 1, 1] adapter switch, or None for a model without adapters here.
            run_layer: calls a layer with its arguments; compilers may do it in their own way.
            padding: [B, n, C], of :func:`padded_keys`, where it is made beforehand: under a
                compiler T is a symbol, and what is computed from it ends as divisions for every
                element of the attention scores.

        Returns:
            Frames, zero past each clip, and the logits of both CTC layers.
        """
        length = features.shape[1]
        if padding is None:
            padding = padded_keys(lengths, length, self.config.context_size)
        real = torch.arange(length, device=lengths.device) < lengths[:, None]  # [B, T]
        frame_is_real = real[:, :, None].to(features.dtype)
        x = self.input_linear(features, lora)
        mid_logits, kept = x.new_zeros(0), self.config.cat_hidden_layers
        states = [x] if 0 in kept else []
        for index, layer in enumerate(self.layers, start=1):
            x = run_layer(layer, x, frame_is_real, padding, lora)
            if index == self.config.self_conditioning_layer:
                mid_logits = self.out(x, lora)
                x = x + self.out_mid(mid_logits.softmax(dim=-1), lora)
            if index in kept:
                states.append(x)
        frames = torch.cat([*states, x], dim=-1) if states else x
        return EncoderOutput(frames * frame_is_real, self.out(x, lora), mid_logits)


def padded_keys(lengths: Tensor, num_frames: int, context_size: int) -> Tensor:
    """Mark the padded frames of attention blocks.

    Args:
        lengths: [B] int64, real frames of each clip.
        num_frames: T, of the padded batch.
        context_size: the most frames of a block.

    Returns:
        [B, n, C], True where there is none: one block as long as the batch, or n whole ones.
    """
    block = min(num_frames, context_size)
    places = torch.arange(padded_length(num_frames, context_size), device=lengths.device)
    return (places >= lengths[:, None]).unflatten(1, (-1, block))


def padded_length(num_frames: int, context_size: int) -> int:
    """Return the frames to pad to: as they are within one block, else whole blocks."""
    if num_frames <= context_size:
        return num_frames
    return -(-num_frames // context_size) * context_size
