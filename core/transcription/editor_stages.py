"""The stages of Granite Speech NAR as callables: eager or compiled, one graph each.

In: what the encoder returned, then audio rows and slots of text. Out: the best label of each, with
its log-probability: the logits of a whole vocabulary never leave a stage. Windows are cut outside
the graphs, so clips of all lengths and batches of all sizes are a number of windows to them.

Shapes: B clips, T frames, D width of a frame, W windows of a clip, A audio rows, L text slots,
E decoder width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from core.engine.graphs import (
    Arguments,
    Graph,
    Runner,
    at_least_two_frames,
    encode_with,
    encoder_graphs,
    made_here,
)
from core.engine.layer_regions import decoder_layer
from core.engine.stages import EncodeStage, half_seconds
from core.generation.ctc_greedy import BestLabels, best_labels
from core.model.decoder import LayerRunner, call_layer
from core.model.encoder import EncoderOutput
from core.model.granite_speech_nar import GraniteSpeechNar
from core.model.projector import split_into_windows


@dataclass(frozen=True)
class EditorEngine:
    """The stages of one model.

    encode: features [B, T, F], lengths [B], None -> EncoderOutput.
    draft: what the encoder returned, frames of each clip -> best labels [B, W].
    project: frames [B, T, D], frames of each clip -> audio rows [B, A, E].
    edit: audio rows, how many of each clip are real, its slots -> best labels [B, L].
    frames_bucket: the frames to pad to.
    """

    name: str
    encode: EncodeStage
    draft: Callable[[EncoderOutput, Sequence[int]], BestLabels]
    project: Callable[[Tensor, Sequence[int]], Tensor]
    edit: Callable[[Tensor, Sequence[int], Sequence[Sequence[int]]], BestLabels]
    frames_bucket: Callable[[int], int]


def eager_editor(model: GraniteSpeechNar) -> EditorEngine:
    """Make the stages uncompiled, at exact sizes."""
    context = model.config.encoder.context_size

    def encode(features: Tensor, lengths: Tensor, lora: Tensor | None) -> EncoderOutput:
        return model.encoder(features, lengths, lora)

    return EditorEngine(
        "eager",
        encode,
        *_stages(model, call_layer, lambda graph, arguments: graph.run(*arguments)),
        lambda frames: half_seconds(frames, context),
    )


def compiled_editor(model: GraniteSpeechNar, compiler: Runner) -> EditorEngine:
    """Make the stages as graphs that ``compiler`` runs; each is compiled when it is first met."""
    context = model.config.encoder.context_size

    def run(graph: Graph, arguments: Arguments) -> Any:
        return compiler(graph, tuple(made_here(tensor) for tensor in arguments))

    return EditorEngine(
        "compile",
        encode_with(encoder_graphs(model.encoder), context, run),
        *_stages(model, decoder_layer, run),
        lambda frames: at_least_two_frames(frames, context),
    )


def _stages(
    model: GraniteSpeechNar, run_layer: LayerRunner, run: Runner
) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """Make draft, project and edit."""
    config = model.config
    width, windows, clips = config.encoder.hidden_dim, {0: "W"}, {0: "B"}

    def draft(*tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(best_labels(model.draft(*tensors)))

    def project(*tensors: Tensor) -> tuple[Tensor, ...]:
        return (model.project(*tensors),)

    def edit(
        audio: Tensor, slots: Tensor, num_audio: Tensor, num_slots: Tensor
    ) -> tuple[Tensor, ...]:
        return tuple(best_labels(model.edit(audio, slots, num_audio, num_slots, run_layer)))

    draft_graph = Graph("draft", draft, (windows, windows, windows))
    project_graph = Graph("project", project, (windows, windows))
    edit_graph = Graph("edit", edit, ({0: "B", 1: "A"}, {0: "B", 1: "L"}, clips, clips))

    def over_windows(graph: Graph, size: int, *parts: Tensor) -> list[Tensor]:
        cut = [split_into_windows(part, size) for part in parts]
        count = cut[0].shape[0]
        if count == 1:  # not a case of its own; the copy is never read
            cut = [part.repeat(2, 1, 1) for part in cut]
        found = run(graph, tuple(part.contiguous() for part in cut))
        return [t[:count].unflatten(0, (parts[0].shape[0], -1)) for t in found]

    def draft_clips(encoded: EncoderOutput, lengths: Sequence[int]) -> BestLabels:
        last = encoded.frames[..., -width:]  # [B, T, D]
        real, size = _real(last, lengths), config.draft_head.pooling_window
        return BestLabels(
            *over_windows(draft_graph, size, last, encoded.mid_ctc_logits, real)  # [B, W]
        )

    def project_clips(frames: Tensor, lengths: Sequence[int]) -> Tensor:
        size = config.projector.window_size
        (audio,) = over_windows(project_graph, size, frames, _real(frames, lengths))
        return audio.flatten(1, 2)  # [B, A, E]

    def edit_clips(
        audio: Tensor, num_audio: Sequence[int], slots: Sequence[Sequence[int]]
    ) -> BestLabels:
        rows = [torch.tensor(row) for row in slots]
        laid_out = pad_sequence(rows, batch_first=True)  # [B, L]
        counts = (torch.tensor(num_audio), torch.tensor([len(row) for row in slots]))
        audio = audio[:, : max(2, *num_audio)].contiguous()
        if audio.shape[1] == 1:  # not a case of its own; the copy is never read
            audio = audio.repeat(1, 2, 1)
        on_device = (tensor.to(audio.device) for tensor in (laid_out, *counts))
        return BestLabels(*run(edit_graph, (audio, *on_device)))

    return draft_clips, project_clips, edit_clips


def _real(frames: Tensor, lengths: Sequence[int]) -> Tensor:
    """Mark real frames [B, T, 1] as numbers of the frames' own dtype."""
    places = torch.arange(frames.shape[1], device=frames.device)
    counts = torch.tensor(list(lengths), device=frames.device)
    return (places < counts[:, None])[..., None].to(frames.dtype)
