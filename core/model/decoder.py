"""Granite language model: embeddings, positions and a cache -> hidden states -> logits.

In: input embeddings (text and audio alike, before the embedding multiplier), each row's positions,
and the cache to read and write. Out: hidden states; ``logits`` turns the ones asked for into
scores. Equal to transformers ``GraniteForCausalLM`` with its four multipliers.

Shapes: B batch, T new positions, S cache slots, E width, H heads, K key/value heads, G = H / K,
d head width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.model.cache import KVCache
from core.model.config import DecoderConfig
from core.model.linear import ACTIVATIONS, linear
from core.model.lora import AdaptableLinear


class RMSNorm(nn.Module):
    """Root-mean-square norm, computed in float32 (arXiv 1910.07467)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x [..., E]."""
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


def rope_tables(positions: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Compute cos and sin [B, T, 1, d] of ``positions`` [B, T] (arXiv 2104.09864, half-split)."""
    steps = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device)
    frequency = 1.0 / (theta ** (steps / head_dim))  # [d/2]
    angle = positions[..., None].float() * frequency  # [B, T, d/2]
    angle = torch.cat((angle, angle), dim=-1)[:, :, None]  # [B, T, 1, d]
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate x [B, T, heads, d] by the tables [B, T, 1, d]."""
    low, high = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-high, low), dim=-1) * sin


class GroupedQueryAttention(nn.Module):
    """Attention with shared keys and values, over the cache (arXiv 2305.13245)."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        width, bias = config.hidden_size, config.attention_bias
        queries = config.num_attention_heads * config.head_dim
        shared = config.num_key_value_heads * config.head_dim
        self.head_dim, self.scale = config.head_dim, config.attention_multiplier
        self.num_kv_heads = config.num_key_value_heads
        self.group = config.num_attention_heads // config.num_key_value_heads
        self.q_proj = AdaptableLinear(width, queries, bias=bias)
        self.k_proj = AdaptableLinear(width, shared, bias=bias)
        self.v_proj = AdaptableLinear(width, shared, bias=bias)
        self.o_proj = AdaptableLinear(queries, width, bias=bias)

    def forward(
        self,
        x: Tensor,
        rope: tuple[Tensor, Tensor],
        mask: Tensor,
        positions: Tensor,
        cache: KVCache | None,
        layer: int,
        lora: Tensor | None,
    ) -> Tensor:
        """Attend to the slots that the mask shows.

        Args:
            x: [B, T, E].
            rope: cosines and sines [B, T, 1, d].
            mask: [B, 1, G*T, S], True where a query may look.
            positions: [B, T] int64.
            cache: keys and values so far, or None.
            layer: this layer's number in the cache.
            lora: [B, 1, 1] adapter switch, or None.

        Returns:
            [B, T, E].
        """
        batch, length, _ = x.shape
        q = rotate(self.q_proj(x, lora).unflatten(-1, (-1, self.head_dim)), *rope)  # [B, T, H, d]
        k = rotate(self.k_proj(x, lora).unflatten(-1, (-1, self.head_dim)), *rope)  # [B, T, K, d]
        v = self.v_proj(x, lora).unflatten(-1, (-1, self.head_dim))
        if cache is not None:
            cache.write(layer, positions, k, v)
            k, v = cache.keys[layer], cache.values[layer]  # [B, S, K, d]
        # The G query heads that share a key head become G*T queries of that head: every key and
        # value is read once, and nothing is repeated in memory.
        q = q.unflatten(2, (self.num_kv_heads, self.group)).permute(0, 2, 3, 1, 4).flatten(2, 3)
        out = F.scaled_dot_product_attention(
            q, k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask, scale=self.scale
        )  # [B, K, G*T, d]
        out = out.unflatten(2, (self.group, length)).permute(0, 3, 1, 2, 4)  # [B, T, K, G, d]
        return self.o_proj(out.reshape(batch, length, -1), lora)


class MLP(nn.Module):
    """SwiGLU (arXiv 2002.05202)."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        width, inner, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.gate_proj = AdaptableLinear(width, inner, bias=bias)
        self.up_proj = AdaptableLinear(width, inner, bias=bias)
        self.down_proj = AdaptableLinear(inner, width, bias=bias)
        self.act = ACTIVATIONS[config.hidden_act]

    def forward(self, x: Tensor, lora: Tensor | None) -> Tensor:
        """Transform x [B, T, E]."""
        return self.down_proj(self.act(self.gate_proj(x, lora)) * self.up_proj(x, lora), lora)


class DecoderLayer(nn.Module):
    """Norm, attention, norm, MLP; both residuals scaled by Granite's residual multiplier."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.self_attn = GroupedQueryAttention(config)
        self.mlp = MLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.residual_multiplier = config.residual_multiplier

    def forward(
        self,
        x: Tensor,
        rope: tuple[Tensor, Tensor],
        mask: Tensor,
        positions: Tensor,
        cache: KVCache | None,
        layer: int,
        lora: Tensor | None,
    ) -> Tensor:
        """Attend, then transform.

        Args:
            x: [B, T, E].
            rope: cosines and sines [B, T, 1, d].
            mask: [B, 1, G*T, S], True where a query may look.
            positions: [B, T] int64.
            cache: keys and values so far, or None.
            layer: this layer's number in the cache.
            lora: [B, 1, 1] adapter switch, or None.

        Returns:
            [B, T, E].
        """
        normed = self.input_layernorm(x)
        attended = self.self_attn(normed, rope, mask, positions, cache, layer, lora)
        x = x + attended * self.residual_multiplier
        return x + self.mlp(self.post_attention_layernorm(x), lora) * self.residual_multiplier


LayerRunner = Callable[..., Tensor]  # with the arguments of call_layer


def call_layer(
    layer: DecoderLayer,
    x: Tensor,
    rope: tuple[Tensor, Tensor],
    mask: Tensor,
    positions: Tensor,
    cache: KVCache | None,
    index: int,
    lora: Tensor | None,
) -> Tensor:
    """Call a layer as it is.

    Args:
        layer: the layer.
        x: [B, T, E].
        rope: cosines and sines [B, T, 1, d].
        mask: [B, 1, G*T, S], True where a query may look.
        positions: [B, T] int64.
        cache: keys and values so far, or None.
        index: this layer's number in the cache.
        lora: [B, 1, 1] adapter switch, or None.

    Returns:
        [B, T, E].
    """
    return layer(x, rope, mask, positions, cache, index, lora)


class GraniteDecoder(nn.Module):
    """The language model. With tied embeddings ``lm_head`` is None and the table serves twice."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.lm_head = (
            None
            if config.tie_word_embeddings
            else AdaptableLinear(config.hidden_size, config.vocab_size, bias=False)
        )

    def forward(
        self,
        embeddings: Tensor,
        positions: Tensor,
        cache: KVCache | None = None,
        lora: Tensor | None = None,
        run_layer: LayerRunner = call_layer,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Compute hidden states of new positions; write their keys and values into ``cache``.

        Args:
            embeddings: [B, T, E], before the embedding multiplier.
            positions: [B, T] int64; also the cache slots that are written.
            cache: keys and values so far, or None to attend among these positions alone.
            lora: [B, 1, 1] adapter switch, or None for a model without an adapter.
            run_layer: calls a layer with its arguments; compilers may do it in their own way.
            mask: [B, 1, 1 or G*T, S], True where a query may look; None is causal.

        Returns:
            [B, T, E], normed, ready for :meth:`logits`.
        """
        x = embeddings * self.config.embedding_multiplier
        cos, sin = rope_tables(positions, self.config.head_dim, self.config.rope_theta)
        rope = (cos.to(x.dtype), sin.to(x.dtype))
        mask = self._causal_mask(positions, cache) if mask is None else mask
        for index, layer in enumerate(self.layers):
            x = run_layer(layer, x, rope, mask, positions, cache, index, lora)
        return self.norm(x)

    def logits(self, hidden: Tensor, lora: Tensor | None = None) -> Tensor:
        """Score hidden states [B, T, E]: [B, T, V] in float32."""
        if self.lm_head is None:
            scores = linear(hidden, self.embed_tokens.weight)
        else:
            scores = self.lm_head(hidden, lora)
        return scores.float() / self.config.logits_scaling

    def _causal_mask(self, positions: Tensor, cache: KVCache | None) -> Tensor:
        """Mark where a query may look, [B, 1, G*T, S]: at slots up to its own position."""
        if cache is None:
            slots = positions[:, None, :]  # [B, 1, S]
        else:
            slots = torch.arange(cache.num_slots, device=positions.device)  # [S]
        visible = slots <= positions[:, :, None]  # [B, T, S]
        group = self.config.num_attention_heads // self.config.num_key_value_heads
        return visible.repeat(1, group, 1)[:, None]
