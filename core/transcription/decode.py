"""The decoder's half of a transcription: audio embeddings -> token ids, in the way asked for.

In: clips that were heard, their embeddings, options. Out: the rows after every pass of the decoder.
Which way of decoding it is stays in here: greedy or sampled, beams, or drafts that are verified.

Shapes: B clips, A audio embeddings, E width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from core.engine.stages import Engine
from core.generation.beam import beam_search
from core.generation.greedy import Hypothesis, PromptBatch, generate
from core.generation.speculative import speculate
from core.generation.speculative_relaxed import BPE_ACCEPTANCE, CHARACTER_ACCEPTANCE, Acceptance
from core.phases import PhaseClock
from core.transcription.clip import Clip
from core.transcription.components import Components
from core.transcription.options import DRAFTED, FAST_DRAFT, TranscribeOptions


def acceptance_of(components: Components, options: TranscribeOptions) -> Acceptance | None:
    """Return how unsure a kept draft may be; None where every token must be the greedy one."""
    if options.decoding != FAST_DRAFT:
        return None
    return CHARACTER_ACCEPTANCE if components.bpe_head is None else BPE_ACCEPTANCE


def decode_tokens(
    components: Components,
    engine: Engine,
    options: TranscribeOptions,
    clips: Sequence[Clip],
    audio: Tensor,
    *,
    lora: Tensor | None,
    clock: PhaseClock,
    cancelled: Callable[[], bool],
) -> Iterator[list[Hypothesis]]:
    """Yield one row a clip after every pass, until all have stopped.

    Args:
        components: the checkpoint.
        engine: its stages.
        options: what was asked for.
        clips: what is written; where drafts are verified, each has what was heard in it, and is
            told how the draft fared.
        audio: [B, A, E].
        lora: adapter switch [B, 1, 1], or None for a checkpoint without an adapter.
        clock: times the passes.
        cancelled: asked before every pass.
    """
    settings, config = options.generation(), components.model.config.decoder
    prompts = PromptBatch(
        lambda: [components.prompt(options.request(), clip.frames) for clip in clips], audio, lora
    )
    if options.decoding not in DRAFTED:
        search = beam_search if settings.num_beams > 1 else generate
        yield from search(engine, config, prompts, settings, clock=clock, cancelled=cancelled)
        return
    for work in speculate(
        engine,
        config,
        prompts,
        [clip.draft_text for clip in clips],
        components.tokenizer,
        settings,
        clock=clock,
        cancelled=cancelled,
        acceptance=acceptance_of(components, options),
    ):
        for clip, item in zip(clips, work, strict=True):
            clip.draft = item.report()
        yield [item.row for item in work]
