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
from core.generation.greedy import Prompts, Row, generate
from core.generation.speculative import speculate
from core.generation.speculative_relaxed import LENIENT_BPE, LENIENT_CHARACTERS, Leniency
from core.phases import PhaseClock
from core.transcription.clip import Clip
from core.transcription.components import Parts
from core.transcription.options import FAST_DRAFT, TranscribeOptions


def leniency_of(parts: Parts, options: TranscribeOptions) -> Leniency | None:
    """How unsure a draft may be and yet be kept; None where every token must be the greedy one."""
    if options.decoding != FAST_DRAFT:
        return None
    return LENIENT_CHARACTERS if parts.bpe_head is None else LENIENT_BPE


def write_tokens(
    parts: Parts,
    engine: Engine,
    options: TranscribeOptions,
    clips: Sequence[Clip],
    audio: Tensor,
    *,
    lora: Tensor | None,
    clock: PhaseClock,
    cancelled: Callable[[], bool],
) -> Iterator[list[Row]]:
    """Yield one row a clip after every pass, until all have stopped.

    Args:
        parts: the checkpoint.
        engine: its stages.
        options: what was asked for.
        clips: what is written; where drafts are verified, each has what was heard in it, and is
            told how the draft fared.
        audio: [B, A, E].
        lora: adapter switch [B, 1, 1], or None for a checkpoint without an adapter.
        clock: times the passes.
        cancelled: asked before every pass.
    """
    settings, config = options.generation(), parts.model.config.decoder
    prompts = Prompts(
        lambda: [parts.prompt(options.request(), clip.frames) for clip in clips], audio, lora
    )
    if options.decoding not in ("speculative", FAST_DRAFT):
        search = beam_search if settings.num_beams > 1 else generate
        yield from search(engine, config, prompts, settings, clock=clock, cancelled=cancelled)
        return
    for work in speculate(
        engine,
        config,
        prompts,
        [clip.heard for clip in clips],
        parts.tokenizer,
        settings,
        clock=clock,
        cancelled=cancelled,
        leniency=leniency_of(parts, options),
    ):
        for clip, item in zip(clips, work, strict=True):
            clip.draft = item.report()
        yield [item.row for item in work]
