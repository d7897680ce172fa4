"""Warm-up: run every graph a model needs once, before anybody waits for it.

In: an engine and its model. Out: nothing; afterwards no clip length, prompt, LoRA state, draft
length or cache size within the model's limits compiles anything (``core.engine.graphs`` says why so
few calls are enough: lengths are symbols, only sizes of one are cases of their own).

Shapes: B batch, T feature frames, F features, E decoder width.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from core.engine.stages import ROW_TILE, Engine
from core.model.granite_speech import GraniteSpeech
from core.model.lora import has_adapter, switch

# Any number but one stands for all of them, but compilers weigh loops by the sizes they see first.
TYPICAL_SHORT = 0.75  # of an attention block
TYPICAL_BLOCKS = 3
TYPICAL_PROMPT = 128
TYPICAL_BATCH = 4


@torch.inference_mode()
def warm_up(engine: Engine, model: GraniteSpeech, *, batches: bool = False) -> None:
    """Run every stage of ``engine`` in every variant that single clips meet.

    Args:
        engine: the stages, compiled or packaged; with eager ones this does no harm.
        model: the checkpoint they belong to.
        batches: also what several clips at once, or beams, meet.

    Raises:
        CompileError: a stage cannot be compiled on this machine.
    """
    for rows in (1, TYPICAL_BATCH) if batches else (1,):
        for features, lengths in _clips(model, rows):
            lora = _switch(model, rows, features)
            frames = engine.encode(features, lengths, lora).frames
            audio = engine.project(frames, lora)
        _write(engine, model, audio, lora)


def _clips(model: GraniteSpeech, rows: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Make clips within one attention block, and longer ones.

    The tensors are new each time: a compiler reads notes that were made on them before.

    Yields:
        Features [B, T, F] and lengths [B].
    """
    config, like = model.config.encoder, model.decoder.embed_tokens.weight
    for num_blocks in (TYPICAL_SHORT, TYPICAL_BLOCKS):
        num_frames = max(2, int(num_blocks * config.context_size))
        features = like.new_zeros(rows, num_frames, config.input_dim)
        yield features, torch.tensor([num_frames] * rows, device=like.device)


def _switch(model: GraniteSpeech, rows: int, like: Tensor) -> Tensor | None:
    return switch([True] * rows, like=like) if has_adapter(model) else None


def _write(engine: Engine, model: GraniteSpeech, audio: Tensor, lora: Tensor | None) -> None:
    """Run a prefill, a single step, and a verified draft."""
    config, device, rows = model.config.decoder, audio.device, audio.shape[0]
    limit = config.max_position_embeddings
    length = max(2, min(TYPICAL_PROMPT, limit - ROW_TILE))
    cache = engine.new_cache(
        config,
        batch=rows,
        num_slots=min(engine.cache_bucket(length + ROW_TILE), limit),
        dtype=audio.dtype,
        device=device,
    )
    prompt = torch.zeros(rows, length, dtype=torch.int64, device=device)
    scored = torch.tensor([[length - 1]] * rows, device=device)
    engine.prefill(prompt, audio, scored, cache, lora)
    for width in (1, ROW_TILE):
        tokens = torch.zeros(rows, width, dtype=torch.int64, device=device)
        places = length + torch.arange(width, device=device)
        engine.decode(tokens, places.expand(rows, -1).contiguous(), cache, lora)
