"""Text in, text out, LoRA off: the second pass of the 3.x two-pass design.

In: a conversation. Out: the answer, piece by piece. With the adapter off the decoder is exactly the
text model the checkpoint was made from (arXiv 2505.08699, section 2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from core.engine.stages import Engine
from core.generation.greedy import PromptBatch, generate
from core.generation.sampling import GenerationOptions
from core.phases import PhaseClock
from core.text.tokenizer import StreamDecoder
from core.transcription.components import Components
from core.transcription.generate_ids import no_audio


@torch.inference_mode()
def stream_chat(
    components: Components,
    engine: Engine,
    messages: Sequence[Mapping[str, str]],
    *,
    lora: Tensor | None,
    options: GenerationOptions,
    cancelled: Callable[[], bool],
) -> Iterator[str]:
    """Yield the answer to ``messages`` ({"role", "content"} each), piece by piece.

    Args:
        components: the loaded checkpoint.
        engine: its stages.
        messages: the conversation so far.
        lora: [1, 1, 1] switch that turns the adapter off, or None without one.
        options: how to generate.
        cancelled: asked after every token.

    Yields:
        Text that became certain.
    """
    decoder, seen = StreamDecoder(components.tokenizer), 0
    steps = generate(
        engine,
        components.model.config.decoder,
        PromptBatch([components.prompts.chat(messages)], no_audio(components.model, 1), lora),
        options,
        clock=PhaseClock(components.device),
        cancelled=cancelled,
    )
    for rows in steps:
        for token in rows[0].ids[seen:]:
            yield decoder.push(token)
        seen = len(rows[0].ids)
    yield decoder.finish()
