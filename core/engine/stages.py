"""The stages as callables with fixed shapes: eager here, compiled in ``core.engine.compiling``.

In: tensors padded to the sizes the engine asks for. Out: the stage's result. Generation talks to an
engine only, so eager and compiled runs share every line above the arithmetic.

Shapes: B batch, T feature frames, A audio embeddings, P prompt length, N new tokens of a step,
Q scored positions, E width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from core.model import decoder, encoder
from core.model.cache import KVCache, allocate_cache
from core.model.encoder import EncoderOutput, padded_length
from core.model.granite_speech import GraniteSpeech

EncodeStage = Callable[[Tensor, Tensor, Tensor | None], EncoderOutput]
ProjectStage = Callable[[Tensor, Tensor | None], Tensor]
PrefillStage = Callable[[Tensor, Tensor, Tensor, KVCache, Tensor | None], Tensor]
DecodeStage = Callable[[Tensor, Tensor, KVCache, Tensor | None], Tensor]

ROW_TILE = 16
FRAME_STEP = 25  # half a second: kernels prepare themselves for each new length of a long clip
EAGER_SLOT_STEP = 64  # eager decoding attends over this many slots more at a time


@dataclass(frozen=True)
class Engine:
    """The stages of one model.

    encode: features [B, T, F], lengths [B], lora -> EncoderOutput.
    project: frames [B, T, D], lora -> audio embeddings [B, A, E].
    prefill: prompt ids [B, P], audio [B, A, E], scored [B, Q] (places whose next token is wanted),
        cache, lora -> logits [B, Q, V].
    decode: token ids [B, N], positions [B, N], cache, lora -> logits [B, N, V]; N is one for plain
        steps and more when a draft is verified.
    frames_bucket, prompt_bucket, cache_bucket: the size to pad a length to.
    verify_bucket: how many tokens a pass over that many should be padded to.
    slots_in_use: how many cache slots a step at this position should attend over.
    new_cache: makes a request's cache, as :func:`core.model.cache.allocate_cache` does.
    """

    name: str
    encode: EncodeStage
    project: ProjectStage
    prefill: PrefillStage
    decode: DecodeStage
    frames_bucket: Callable[[int], int]
    prompt_bucket: Callable[[int], int]
    cache_bucket: Callable[[int], int]
    verify_bucket: Callable[[int], int]
    slots_in_use: Callable[[int, int], int]
    new_cache: Callable[..., KVCache] = allocate_cache


def encode_stage(
    model: GraniteSpeech, run_layer: encoder.LayerRunner = encoder.call_layer
) -> EncodeStage:
    """Return the encoder as a plain function."""

    def encode(features: Tensor, lengths: Tensor, lora: Tensor | None) -> EncoderOutput:
        return model.encoder(features, lengths, lora, run_layer)

    return encode


def project_stage(model: GraniteSpeech) -> ProjectStage:
    """Return the projector as a plain function."""

    def project(frames: Tensor, lora: Tensor | None) -> Tensor:
        return model.projector(frames, lora)

    return project


def prefill_stage(
    model: GraniteSpeech, run_layer: decoder.LayerRunner = decoder.call_layer
) -> PrefillStage:
    """Return a function that splices, runs the whole prompt and scores the places asked for."""

    def prefill(
        prompt_ids: Tensor, audio: Tensor, scored: Tensor, cache: KVCache, lora: Tensor | None
    ) -> Tensor:
        embeddings = model.splice(prompt_ids, audio)  # [B, P, E]
        positions = torch.arange(prompt_ids.shape[1], device=prompt_ids.device)
        positions = positions.expand(prompt_ids.shape)
        hidden = model.decoder(embeddings, positions, cache, lora, run_layer)
        wanted = hidden.gather(1, scored[..., None].expand(-1, -1, hidden.shape[-1]))
        return model.decoder.logits(wanted, lora)  # [B, Q, V]

    return prefill


def decode_stage(
    model: GraniteSpeech, run_layer: decoder.LayerRunner = decoder.call_layer
) -> DecodeStage:
    """Return a function that runs more tokens per row, each at its own position."""

    def decode(token_ids: Tensor, positions: Tensor, cache: KVCache, lora: Tensor | None) -> Tensor:
        embeddings = model.embed_text(token_ids)  # [B, N, E]
        hidden = model.decoder(embeddings, positions, cache, lora, run_layer)
        return model.decoder.logits(hidden, lora)  # [B, N, V]

    return decode


def whole_tiles(rows: int) -> int:
    """Round up the rows of a matrix product to what CPU kernels do fast: 1, 2, or 16 * k.

    Between 3 and 15 rows most float32 kernels take longer than for 16.

    Returns:
        The rows to pad to.
    """
    return rows if rows <= 2 else -(-rows // ROW_TILE) * ROW_TILE


def half_seconds(frames: int, context: int) -> int:
    """Return the frames that eager stages pad to: half seconds beyond one attention block."""
    if frames <= context:
        return frames
    return min(padded_length(frames, context), -(-frames // FRAME_STEP) * FRAME_STEP)


def eager_engine(model: GraniteSpeech) -> Engine:
    """Make the stages uncompiled, at exact sizes: nothing is computed that is not needed."""
    context = model.config.encoder.context_size

    def slots_in_use(position: int, num_slots: int) -> int:
        return min(num_slots, (position // EAGER_SLOT_STEP + 1) * EAGER_SLOT_STEP)

    return Engine(
        name="eager",
        encode=encode_stage(model),
        project=project_stage(model),
        prefill=prefill_stage(model),
        decode=decode_stage(model),
        frames_bucket=lambda frames: half_seconds(frames, context),
        prompt_bucket=lambda length: length,
        cache_bucket=lambda slots: slots,
        verify_bucket=whole_tiles,
        slots_in_use=slots_in_use,
    )
