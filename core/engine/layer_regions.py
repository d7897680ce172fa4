"""Regional compilation: compile one layer, reuse it for all.

In: a layer and its arguments. Out: the layer's result. Under ``torch.compile`` the first layer of a
stack is traced and lowered, and its code reused for the others, which differ in their weights only;
everywhere else these are plain calls: an export would trace each region twice and inline it then.
Compile time is that of a few layers, however many there are, and the code is as fast as that of the
whole stack but for the call of each region.

A region takes tensors: a layer's own key and value buffers instead of the whole cache and a number.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from core.model.cache import KVCache, cache_of
from core.model.decoder import DecoderLayer
from core.model.encoder import ConformerBlock


@torch.compiler.nested_compile_region
def _encoder_layer(
    layer: ConformerBlock,
    x: Tensor,
    frame_is_real: Tensor,
    padding: Tensor,
    lora: Tensor | None,
) -> Tensor:
    return layer(x, frame_is_real, padding, lora)


def encoder_layer(
    layer: ConformerBlock,
    x: Tensor,
    frame_is_real: Tensor,
    padding: Tensor,
    lora: Tensor | None,
) -> Tensor:
    """Run one conformer block.

    Args:
        layer: the conformer block.
        x: [B, T, D].
        frame_is_real: [B, T, 1].
        padding: [B, n, C], True where there is no frame.
        lora: [B, 1, 1] adapter switch, or None.

    Returns:
        [B, T, D].
    """
    run = layer if torch.compiler.is_exporting() else partial(_encoder_layer, layer)
    return run(x, frame_is_real, padding, lora)


@torch.compiler.nested_compile_region
def _decoder_layer(
    layer: DecoderLayer,
    x: Tensor,
    cos: Tensor,
    sin: Tensor,
    mask: Tensor,
    positions: Tensor,
    keys: Tensor,
    values: Tensor,
    lora: Tensor | None,
) -> Tensor:
    return layer(x, (cos, sin), mask, positions, cache_of((keys, values)), 0, lora)


@torch.compiler.nested_compile_region
def _layer_without_cache(
    layer: DecoderLayer,
    x: Tensor,
    cos: Tensor,
    sin: Tensor,
    mask: Tensor,
    positions: Tensor,
    lora: Tensor | None,
) -> Tensor:
    return layer(x, (cos, sin), mask, positions, None, 0, lora)


def decoder_layer(
    layer: DecoderLayer,
    x: Tensor,
    rope: tuple[Tensor, Tensor],
    mask: Tensor,
    positions: Tensor,
    cache: KVCache | None,
    index: int,
    lora: Tensor | None,
) -> Tensor:
    """Run one decoder layer on its own part of the cache.

    Args:
        layer: the decoder layer.
        x: [B, T, E].
        rope: cosines and sines [B, T, 1, d].
        mask: [B, 1, G*T, S], True where a query may look.
        positions: [B, T] int64.
        cache: keys and values so far, or None.
        index: the layer's number.
        lora: [B, 1, 1] adapter switch, or None.

    Returns:
        [B, T, E].
    """
    if torch.compiler.is_exporting():
        return layer(x, rope, mask, positions, cache, index, lora)
    if cache is None:
        return _layer_without_cache(layer, x, *rope, mask, positions, lora)
    keys, values = cache.keys[index], cache.values[index]
    return _decoder_layer(layer, x, *rope, mask, positions, keys, values, lora)
