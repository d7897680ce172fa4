"""Each stage as one function of plain tensors, for compilers.

In: a model. Out: six :class:`Graph` functions, and :func:`graph_engine`, which turns the stages'
own arguments into theirs and hands them to whoever runs graphs: the compiler, a package built
ahead of time, or eager Python.

Every size that a recording, a prompt, a draft or a batch decides is *varying*: a symbol in the
compiled code instead of a number, so one graph serves all lengths. A size of one is the exception.
It stands for other arithmetic (a matrix product becomes a matrix-vector product), and compilers
treat it as a case of its own, so :func:`variant` names it: ``decode`` and ``decode-B1`` are two.
Where one would be a needless case (one window, one scored place) it is padded to two.
A clip within one attention block of the encoder has a graph of its own, in which the block is as
long as the clip; padded to a whole block, most commands would cost twice their time.

Shapes: B batch, T frames of a clip, in n encoder blocks of C, F features, W projector
windows, P prompt length, A audio embeddings, Q scored places, N tokens verified at once, S cache
slots, E width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from core.engine.layer_graphs import (
    DECODER_SIZES,
    LayerGraph,
    call_decoder_layers,
    call_encoder_layers,
    one_of,
    run_decoder_layer,
    run_encoder_layer,
)
from core.engine.layer_regions import decoder_layer, encoder_layer
from core.engine.stages import (
    EncodeStage,
    Engine,
    decode_stage,
    eager_engine,
    half_seconds,
    prefill_stage,
)
from core.model.cache import KVCache, cache_of
from core.model.decoder import call_layer
from core.model.encoder import ConformerEncoder, EncoderOutput, padded_keys
from core.model.granite_speech import GraniteSpeech
from core.model.projector import split_into_windows
from core.model.quantize import Int8Linear

Arguments = tuple[Tensor | None, ...]
LARGE_LAYER_BYTES = 16 * 2**20
BUFFER_SIZES = {0: "B", 1: "S"}  # of every key and value buffer [B, S, K, d]


@dataclass(frozen=True)
class Graph:
    """A stage as a function of tensors that returns a tuple of tensors.

    name: the stage. run: the function. sizes: of each leading argument, dimension -> letter of the
    varying size. The last leading argument is the adapter switch (None for a model without an
    adapter); the arguments after it are the cache's buffers. layer: the same stage with one of its
    layers as the graph, for packages; None where it is compiled whole, as it is where a layer is so
    small that calling it from Python shows.
    """

    name: str
    run: Callable[..., tuple[Tensor, ...]]
    sizes: tuple[dict[int, str], ...]
    layer: LayerGraph | None = None

    @property
    def lora(self) -> int:
        """Return the place of the adapter switch: the last argument before the cache."""
        return len(self.sizes) - 1

    def sizes_of(self, argument: int) -> dict[int, str]:
        """Return dimension -> letter of the varying sizes of one argument."""
        return self.sizes[argument] if argument < len(self.sizes) else BUFFER_SIZES


@dataclass(frozen=True)
class Graphs:
    """The six graphs of a model. encode_blocks: clips of more than one attention block."""

    encode: Graph
    encode_blocks: Graph
    project: Graph
    prefill: Graph
    decode: Graph
    verify: Graph


Runner = Callable[[Graph, Arguments], Any]


def variant(graph: Graph, arguments: Arguments) -> str:
    """Name a graph with the letters of the varying sizes that are one: ``prefill-B1``."""
    ones: list[str] = []
    for tensor, sizes in zip(arguments, graph.sizes, strict=False):
        for dimension, letter in sizes.items():
            if tensor is not None and tensor.shape[dimension] == 1 and letter not in ones:
                ones.append(letter)
    return "-".join([graph.name, *(f"{letter}1" for letter in ones)])


def graphs_of(model: GraniteSpeech) -> Graphs:
    """Make the graphs of ``model``; nothing is compiled here."""
    layers = model.decoder.layers
    # Calling a region costs a step tens of microseconds a layer: nothing beside reading a large
    # layer's weights, as much as the whole arithmetic of a small one.
    large = bytes_of(layers[0]) >= LARGE_LAYER_BYTES
    step_layer = decoder_layer if large else call_layer

    def project(windows: Tensor, lora: Tensor | None) -> tuple[Tensor, ...]:
        return (model.projector(windows, lora),)  # a window is a clip to it: nothing crosses them

    def prefill_with(run_layer: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, ...]]:
        stage = prefill_stage(model, run_layer)

        def prefill(
            prompt_ids: Tensor, audio: Tensor, scored: Tensor, lora: Tensor | None, *buffers: Tensor
        ) -> tuple[Tensor, ...]:
            return (stage(prompt_ids, audio, scored, cache_of(buffers), lora),)

        return prefill

    def steps_with(run_layer: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, ...]]:
        stage = decode_stage(model, run_layer)

        def decode(
            token_ids: Tensor, positions: Tensor, lora: Tensor | None, *buffers: Tensor
        ) -> tuple[Tensor, ...]:
            return (stage(token_ids, positions, cache_of(buffers), lora),)

        return decode

    batch = {0: "B"}
    encode, encode_blocks = encoder_graphs(model.encoder)
    prefill_layer = None
    if large:  # steps stay whole: they are too short for a call from Python for each layer
        prefill_layer = one_of(
            layers, run_decoder_layer, DECODER_SIZES, call_decoder_layers, prefill_with
        )
    return Graphs(
        encode=encode,
        encode_blocks=encode_blocks,
        project=Graph("project", project, ({0: "W"}, {0: "W"})),
        prefill=Graph(
            "prefill",
            prefill_with(decoder_layer),
            ({0: "B", 1: "P"}, {0: "B", 1: "A"}, {0: "B", 1: "Q"}, batch),
            prefill_layer,
        ),
        decode=Graph("decode", steps_with(step_layer), (batch, batch, batch)),
        verify=Graph("verify", steps_with(step_layer), ({0: "B", 1: "N"}, {0: "B", 1: "N"}, batch)),
    )


def encoder_graphs(encoder: ConformerEncoder) -> tuple[Graph, Graph]:
    """Make the graphs of clips within one attention block, and of longer ones."""

    def encode_with(run_layer: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, ...]]:
        def encode(
            features: Tensor, lengths: Tensor, padding: Tensor, lora: Tensor | None
        ) -> tuple[Tensor, ...]:
            return tuple(encoder(features, lengths, lora, run_layer, padding))

        return encode

    def graph(name: str, blocks: dict[int, str]) -> Graph:
        batch, rows = {0: "B"}, {0: "B", 1: "T"}
        layer = None
        if bytes_of(encoder.layers[0]) >= LARGE_LAYER_BYTES:
            sizes = (rows, rows, blocks, batch)  # of run_encoder_layer's tensors
            layer = one_of(
                encoder.layers, run_encoder_layer, sizes, call_encoder_layers, encode_with
            )
        return Graph(name, encode_with(encoder_layer), (rows, batch, blocks, batch), layer)

    return graph("encode", {0: "B", 2: "T"}), graph("encode_blocks", {0: "B", 1: "n"})


def bytes_of(module: nn.Module) -> int:
    """Count the bytes of a module's weights and buffers, packed ones too."""
    packed = (part.packed for part in module.modules() if isinstance(part, Int8Linear))
    return sum(t.numel() * t.element_size() for t in module.state_dict().values()) + sum(
        weight.num_bytes for weight in packed if weight is not None
    )


def encode_with(graphs: tuple[Graph, Graph], context: int, run: Runner) -> EncodeStage:
    """Make the encoder's stage of :func:`encoder_graphs`, with blocks of ``context`` frames."""
    within, several = graphs

    def encode(features: Tensor, lengths: Tensor, lora: Tensor | None) -> EncoderOutput:
        frames = features.shape[1]
        padding = padded_keys(lengths, frames, context)
        graph = within if frames <= context else several
        return EncoderOutput(*run(graph, (features.contiguous(), lengths, padding, lora)))

    return encode


def at_least_two_frames(frames: int, context: int) -> int:
    """Return the frames to pad to: those of eager stages, but two for one."""
    return max(2, half_seconds(frames, context))


def graph_engine(name: str, model: GraniteSpeech, runner: Runner) -> Engine:
    """Make stages of ``model`` from graphs that ``runner`` executes.

    Sizes are the eager engine's, but for clips and prompts of one, which become two.

    Returns:
        The engine.
    """
    graphs, context = graphs_of(model), model.config.encoder.context_size

    def run(graph: Graph, arguments: Arguments) -> Any:
        count = len(graph.sizes)
        leading = tuple(made_here(tensor) for tensor in arguments[:count])
        return runner(graph, (*leading, *arguments[count:]))  # a cache is written, never copied

    def project(frames: Tensor, lora: Tensor | None) -> Tensor:
        windows = split_into_windows(frames, model.config.projector.window_size)  # [W, F, D]
        count = windows.shape[0]
        rows = None if lora is None else lora.repeat_interleave(count // frames.shape[0], dim=0)
        if count == 1:  # not a case of its own; the copy is never read
            windows, rows = windows.repeat(2, 1, 1), None if rows is None else rows.repeat(2, 1, 1)
        (embeddings,) = run(graphs.project, (windows.contiguous(), rows))
        return embeddings[:count].reshape(frames.shape[0], -1, embeddings.shape[-1])  # [B, A, E]

    def prefill(
        prompt_ids: Tensor, audio: Tensor, scored: Tensor, cache: KVCache, lora: Tensor | None
    ) -> Tensor:
        leading = (prompt_ids, _at_least_two(audio), _at_least_two(scored), lora)
        (logits,) = run(graphs.prefill, (*leading, *cache.keys, *cache.values))
        return logits[:, : scored.shape[1]]

    def decode(token_ids: Tensor, positions: Tensor, cache: KVCache, lora: Tensor | None) -> Tensor:
        graph = graphs.decode if token_ids.shape[1] == 1 else graphs.verify
        (logits,) = run(graph, (token_ids, positions, lora, *cache.keys, *cache.values))
        return logits

    return replace(
        eager_engine(model),
        name=name,
        encode=encode_with((graphs.encode, graphs.encode_blocks), context, run),
        project=project,
        prefill=prefill,
        decode=decode,
        frames_bucket=lambda frames: at_least_two_frames(frames, context),
        prompt_bucket=lambda length: max(2, length),
    )


def _at_least_two(values: Tensor) -> Tensor:
    """Repeat values [B, 1, ...] once; keep longer ones. The copy is never read."""
    return values.repeat(1, 2, *[1] * (values.ndim - 2)) if values.shape[1] == 1 else values


def made_here(tensor: Tensor | None) -> Tensor | None:
    """Copy a tensor older than this inference mode: compiled code tells them apart."""
    if tensor is None or tensor.is_inference() or not torch.is_inference_mode_enabled():
        return tensor
    return tensor.clone()
