"""Token ids -> more token ids, with or without sound: the model without prompts and text.

In: prompt ids per row and a waveform per row. Out: finished rows. What parity tests and token-level
tools use; transcripts come from ``core.transcription.transcribe``.

Shapes: B rows, E decoder width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from core.engine.encode import embed
from core.engine.stages import Engine
from core.generation.beam import beam_search
from core.generation.greedy import Hypothesis, PromptBatch, generate
from core.generation.sampling import GenerationOptions
from core.model.features import LogMel
from core.model.granite_speech import GraniteSpeech, check_audio_positions
from core.phases import PhaseClock


@torch.inference_mode()
def continue_prompts(
    model: GraniteSpeech,
    feature_extractor: LogMel,
    engine: Engine,
    prompt_ids: list[list[int]],
    waveforms: Sequence[Tensor] | None,
    *,
    lora: Tensor | None,
    options: GenerationOptions,
) -> list[Hypothesis]:
    """Continue every prompt.

    Args:
        model: the checkpoint.
        feature_extractor: its features.
        engine: its stages.
        prompt_ids: per row, with exactly the audio positions its waveform makes.
        waveforms: one [N] at 16 kHz per row, or None for text.
        lora: [B, 1, 1] adapter switch, or None.
        options: how to generate.

    Returns:
        One finished hypothesis per row.

    Raises:
        ValueError: a prompt's audio positions do not match its waveform.
    """
    if waveforms is None:
        audio = no_audio(model, len(prompt_ids))
    else:
        like = model.decoder.embed_tokens.weight
        encoded, features = embed(feature_extractor, engine, waveforms, like=like, lora=lora)
        for ids, length in zip(prompt_ids, features.lengths, strict=True):
            check_audio_positions(ids, model.config.audio_token_id, model.num_audio_tokens(length))
        audio = engine.project(encoded.frames, lora)
    search = beam_search if options.num_beams > 1 else generate
    prompts, clock = PromptBatch(prompt_ids, audio, lora), PhaseClock(audio.device)
    *_, rows = search(engine, model.config.decoder, prompts, options, clock=clock)
    return rows


def no_audio(model: GraniteSpeech, batch: int) -> Tensor:
    """Return stand-in audio embeddings [B, 1, E] for prompts without audio positions."""
    return model.decoder.embed_tokens.weight.new_zeros(batch, 1, model.config.decoder.hidden_size)
