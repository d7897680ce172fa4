"""Recognised clips -> transcripts: the one place where a :class:`Transcript` is filled.

In: what was said, who recognised it and the clock. Out: a frozen transcript: texts, times, cost.
"""

from __future__ import annotations

from dataclasses import dataclass

from core.generation.greedy import CANCELLED
from core.memory import peak_memory_bytes
from core.phases import PhaseClock
from core.text.transcript import DraftReport, PhaseTime, Segment, Transcript, Word
from core.text.words import confidence
from core.transcription.clip import Clip
from core.transcription.recognizer import RecognitionRequest


@dataclass(frozen=True, kw_only=True)
class Content:
    """The recognition of one recording.

    Attributes:
        file: its path, or "".
        audio_s: its length in seconds.
        heard_s: seconds of it that the text covers; 0 where it was stopped in its first pass.
        num_passes: passes of the model, whose first token each is not counted as decoding.
    """

    file: str
    audio_s: float
    heard_s: float
    text: str
    segments: tuple[Segment, ...]
    words: tuple[Word, ...]
    token_ids: tuple[int, ...]
    num_passes: int
    first_text_ms: float | None
    draft: DraftReport | None
    warnings: tuple[str, ...]
    stopped: bool


def content_of(clip: Clip, request: RecognitionRequest, *, stopped: bool) -> Content:
    """Return what a clip holds once its batch is over.

    Args:
        clip: the clip.
        request: how it was recognised.
        stopped: whether the caller stopped before anything was written.
    """
    found = clip.hypothesis
    ids, logprobs = ([], []) if found is None else (found.ids, found.logprobs)
    stopped = stopped if found is None else found.stop == CANCELLED
    whole = Segment(0.0, clip.seconds, clip.text, confidence(logprobs))
    return Content(
        file=clip.name,
        audio_s=clip.seconds,
        heard_s=0.0 if stopped else clip.seconds,
        text=clip.text,
        segments=clip.segments or ((whole,) if clip.text else ()),
        words=clip.words,
        token_ids=tuple(ids),
        num_passes=1,
        first_text_ms=clip.first_text_ms,
        draft=clip.draft,
        warnings=clip.warnings(request.options, stopped=stopped),
        stopped=stopped,
    )


def build_transcript(
    content: Content, request: RecognitionRequest, clock: PhaseClock, elapsed_ms: float
) -> Transcript:
    """Build the transcript of one recording.

    Args:
        content: what was recognised.
        request: how.
        clock: has the time of every phase.
        elapsed_ms: from the call to the end of the work.

    Returns:
        The transcript, with its real-time factor, tokens per second and peak memory.
    """
    options, checkpoint = request.options, request.recognizer.checkpoint
    seconds = sum(clock.seconds(name) for name in request.recognizer.token_phases)
    counted = len(content.token_ids) - content.num_passes
    return Transcript(
        file=content.file,
        text=content.text,
        segments=content.segments,
        words=content.words,
        language=options.target_language or options.language,
        model=checkpoint.model_info.name,
        engine=request.engine.name,
        lora=request.lora,
        decoding=options.decoding,
        token_ids=content.token_ids,
        audio_s=content.audio_s,
        phases=tuple(PhaseTime(name, ms) for name, ms in clock.milliseconds()),
        end_to_end_ms=elapsed_ms,
        rtf=elapsed_ms / 1000 / content.heard_s if content.heard_s else 0.0,
        time_to_first_token_ms=content.first_text_ms,
        new_tokens=len(content.token_ids),
        new_tokens_per_s=counted / seconds if counted > 0 and seconds > 0 else None,
        peak_memory_bytes=peak_memory_bytes(checkpoint.device),
        draft=content.draft,
        warnings=content.warnings,
        stopped=content.stopped,
    )
