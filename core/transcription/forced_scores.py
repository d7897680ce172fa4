"""Teacher-forced logits of given tokens: how alike two models transcribe a clip.

In: a waveform and token ids. Out: the logits after the prompt and after each of the tokens, each
given the tokens before it. One pass, nothing is generated.

Shapes: Q tokens and one, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from core.engine.encode import embed
from core.engine.stages import Engine
from core.generation.greedy import PromptBatch, run_prefill
from core.text.prompts import Request
from core.transcription.components import Components


@torch.inference_mode()
def logits_along(
    components: Components,
    engine: Engine,
    waveform: Tensor,
    token_ids: Sequence[int],
    *,
    request: Request,
    lora: Tensor | None,
) -> Tensor:
    """Compute the teacher-forced logits after the prompt and after each of ``token_ids``.

    Args:
        components: the loaded checkpoint.
        engine: its stages.
        waveform: [N] at 16 kHz.
        token_ids: what the model is taken to have written.
        request: what is asked of it.
        lora: [1, 1, 1] adapter switch, or None without one.

    Returns:
        Logits [Q, V].
    """
    like = components.model.decoder.embed_tokens.weight
    encoded, features = embed(
        components.feature_extractor, engine, [waveform], like=like, lora=lora
    )
    audio = engine.project(encoded.frames, lora)
    prompt = components.prompt(request, features.lengths[0])
    _, logits = run_prefill(
        engine,
        components.model.config.decoder,
        PromptBatch([prompt], audio, lora),
        len(token_ids) + 1,
        drafts=[list(token_ids)],
    )
    return logits[0, : len(token_ids) + 1]
