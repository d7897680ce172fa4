"""One layer as a graph: a package compiles it once and calls it for every layer of a stage.

In: the layers of a stage. Out: a :class:`LayerGraph`. Each layer's weights are arguments of the
compiled layer; what lies between the layers stays Python. A package so has the code of one layer
where a whole graph has that of all: AOTInductor knows no regions (``core.engine.layer_regions``)
and would inline them.

Shapes: B batch, T frames in n blocks of C, or positions, D encoder width, S cache slots, E width, d
head width, K key heads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from core.model.cache import KVCache, cache_of
from core.model.decoder import DecoderLayer
from core.model.encoder import ConformerBlock

CallLayer = Callable[[nn.Module, tuple[Tensor | None, ...]], Tensor]


@dataclass(frozen=True)
class LayerGraph:
    """One layer of a stage as a function of tensors, and the stage around it.

    layers: of the stage, in order, all alike. run: a layer and its tensors -> its result. sizes:
    of each tensor, dimension -> letter of the varying size. stage: what calls a layer with its
    tensors -> a function of the same arguments and results as the whole graph's.
    """

    layers: Sequence[nn.Module]
    run: Callable[..., Tensor]
    sizes: tuple[dict[int, str], ...]
    stage: Callable[[CallLayer], Callable[..., tuple[Tensor, ...]]]

    def sizes_of(self, argument: int) -> dict[int, str]:
        """Return dimension -> letter of the varying sizes of one tensor."""
        return self.sizes[argument]


DECODER_SIZES = (
    *({0: "B", 1: "T"},) * 3,
    {0: "B", 1: "T", 2: "S"},
    {0: "B", 1: "T"},
    {0: "B"},
    *({0: "B", 1: "S"},) * 2,
)  # of the tensors of run_decoder_layer


def run_encoder_layer(
    layer: ConformerBlock, x: Tensor, real: Tensor, padding: Tensor, lora: Tensor | None
) -> Tensor:
    """Run a conformer block.

    Args:
        layer: the conformer block.
        x: [B, T, D].
        real: [B, T, 1].
        padding: [B, n, C], True where there is no frame.
        lora: [B, 1, 1] adapter switch, or None.

    Returns:
        [B, T, D].
    """
    return layer(x, real, padding, lora)


def call_encoder_layers(call: CallLayer) -> Callable[..., Tensor]:
    """Return a runner of conformer blocks that hands their tensors to ``call``."""
    return lambda layer, *tensors: call(layer, tensors)


def run_decoder_layer(
    layer: DecoderLayer,
    x: Tensor,
    cos: Tensor,
    sin: Tensor,
    visible: Tensor,
    positions: Tensor,
    lora: Tensor | None,
    keys: Tensor,
    values: Tensor,
) -> Tensor:
    """Run a decoder layer on its own part of the cache.

    Args:
        layer: the decoder layer.
        x: [B, T, E].
        cos: [B, T, 1, d].
        sin: [B, T, 1, d].
        visible: [B, T, S], True where a position may look.
        positions: [B, T] int64.
        lora: [B, 1, 1] adapter switch, or None.
        keys: [B, S, K, d], written in place.
        values: [B, S, K, d], written in place.

    Returns:
        [B, T, E].
    """
    mask = visible.repeat(1, layer.self_attn.group, 1)[:, None]
    return layer(x, (cos, sin), mask, positions, cache_of((keys, values)), 0, lora)


def call_decoder_layers(call: CallLayer) -> Callable[..., Tensor]:
    """Return a runner of decoder layers that hands their tensors to ``call``."""

    def run_layer(
        layer: DecoderLayer,
        x: Tensor,
        rope: tuple[Tensor, Tensor],
        mask: Tensor,
        positions: Tensor,
        cache: KVCache,
        index: int,
        lora: Tensor | None,
    ) -> Tensor:
        visible = mask[:, 0, : x.shape[1]].contiguous()  # its rows repeat for each group of heads
        buffers = (cache.keys[index], cache.values[index])
        return call(layer, (x, *rope, visible, positions.contiguous(), lora, *buffers))

    return run_layer


def one_of(
    layers: nn.ModuleList,
    run: Callable[..., Tensor],
    sizes: tuple[dict[int, str], ...],
    through: Callable[[CallLayer], Callable[..., Tensor]],
    stage_with: Callable[[Callable[..., Tensor]], Callable[..., tuple[Tensor, ...]]],
) -> LayerGraph | None:
    """Make the graph of one of ``layers``.

    Args:
        layers: of a stage.
        run: of the result.
        sizes: of the result.
        through: what calls a layer with its tensors -> a runner with a layer's own arguments.
        stage_with: such a runner -> the stage.

    Returns:
        The graph; None where they are not alike, for an adapter of some layers only.
    """
    if not are_alike(layers):
        return None
    return LayerGraph(tuple(layers), run, sizes, lambda call: stage_with(through(call)))


def are_alike(layers: Iterable[nn.Module]) -> bool:
    """Return whether layers differ in nothing but their weights' values."""
    return len({layout(layer) for layer in layers}) == 1


def layout(module: nn.Module) -> tuple[Any, ...]:
    """List what a compiler takes from a module as a constant, and its tensors' shapes and types."""
    constants = [
        (name, type(part).__name__, key, value)
        for name, part in module.named_modules()
        for key, value in sorted(vars(part).items())
        if isinstance(value, bool | int | float | str | tuple)
    ]
    tensors = [(name, tuple(t.shape), t.dtype) for name, t in module.state_dict().items()]
    return (*constants, *tensors)


def tensors_of(layer: nn.Module) -> dict[str, Tensor]:
    """Return a layer's weights and buffers by name, but for a batch norm's counter of steps."""
    state = layer.state_dict().items()
    return {k: v.detach() for k, v in state if not k.endswith("num_batches_tracked")}
