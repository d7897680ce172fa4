"""One recording on its way through a job: read, followed as it is written, and finished.

In: a source; later the rows that were generated for it. Out: a :class:`Clip`, and at the end its
:class:`Transcript`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from core import phases
from core.audio.container import Source
from core.audio.decode import load_audio
from core.audio.waveform import SAMPLE_RATE, AudioError, from_samples
from core.generation.greedy import CANCELLED, LENGTH, LOOP, Hypothesis
from core.memory import peak_memory_bytes
from core.phases import PhaseClock
from core.text.alignment import align_words
from core.text.tokenizer import StreamDecoder, Tokenizer
from core.text.transcript import DraftReport, PhaseTime, Segment, Transcript, Word
from core.text.words import confidence, split_words
from core.transcription.options import TranscribeOptions
from core.transcription.out_of_domain import OutOfDomainScale

NO_SPEECH = "no speech was heard in this recording"
CUT_SHORT = "the text was cut at {limit} tokens; allow more to see the rest"
REPEATING = "the model began to repeat itself; the repetition was left out"
STOPPED = "stopped before the end of the text"
OUTSIDE = "this recording is probably outside what the model knows: do not trust the text"

AFTER_PREFILL = (phases.DECODE, phases.DRAFT, phases.VERIFY)


@dataclass
class Clip:
    """One recording. row: its generation, once there is one; heard: what the CTC head read.

    frames: encoder frames that are real; outside: whether the text deserves a warning.
    """

    index: int
    name: str
    waveform: Tensor
    row: Hypothesis | None = None
    heard: str = ""
    frames: int = 0
    ctc_logits: Tensor | None = None
    words: tuple[Word, ...] = ()
    text: str = ""
    draft: DraftReport | None = None
    first_text_ms: float | None = None
    decoder: StreamDecoder | None = None
    seen: int = 0
    outside: bool = False

    @property
    def seconds(self) -> float:
        """Length of the recording."""
        return self.waveform.shape[0] / SAMPLE_RATE

    def update_text(
        self, row: Hypothesis, tokenizer: Tokenizer, elapsed_s: float, *, whole: bool
    ) -> bool:
        """Bring the text up to ``row``; whether there is anything new to show.

        Args:
            row: what was generated so far.
            tokenizer: makes text of it.
            elapsed_s: seconds since the request began.
            whole: decode all of it again: a leading beam may replace another.
        """
        self.row = row
        if row.ids and self.first_text_ms is None:
            self.first_text_ms = 1000 * elapsed_s
        if whole:
            text, self.seen = tokenizer.decode(row.ids), len(row.ids)
            changed, self.text = text != self.text, text
            return changed
        self.decoder = self.decoder or StreamDecoder(tokenizer)
        pieces = [self.decoder.push(token) for token in row.ids[self.seen :]]
        self.seen, self.text = len(row.ids), self.decoder.text
        return any(pieces)

    def finish_text(
        self, tokenizer: Tokenizer, frame_s: float | None, scale: OutOfDomainScale | None = None
    ) -> None:
        """The final text and its words.

        Args:
            tokenizer: makes text of ids.
            frame_s: seconds a frame, where words are to have times.
            scale: judges whether the recording is outside what the model knows.
        """
        assert self.row is not None
        self.text = tokenizer.decode(self.row.ids).strip()
        self.words = split_words(tokenizer, self.row.ids, self.row.logprobs)
        if frame_s is not None and self.ctc_logits is not None:
            self.words = tuple(align_words(self.words, self.ctc_logits, frame_s))
        if scale is not None and self.ctc_logits is not None:
            self.outside = scale.warns(self.ctc_logits, self.words)

    def warnings(self, options: TranscribeOptions, *, stopped: bool) -> tuple[str, ...]:
        """What the reader of the transcript should know."""
        if self.row is None:
            return (STOPPED if stopped else NO_SPEECH,)
        told = {LOOP: REPEATING, CANCELLED: STOPPED}.get(self.row.stop or "")
        if self.row.stop == LENGTH and not options.ignore_eos:
            told = CUT_SHORT.format(limit=options.max_new_tokens)
        return tuple(warning for warning in (told, OUTSIDE if self.outside else None) if warning)


def read_clip(index: int, source: Source | Tensor, longest_s: float) -> Clip:
    """Read one recording.

    Raises:
        AudioError: no readable recording, or one longer than ``longest_s`` seconds.
    """
    if not isinstance(source, Tensor):
        waveform = load_audio(source, max_seconds=longest_s)
        return Clip(index, str(source) if isinstance(source, str | Path) else "", waveform)
    clip = Clip(index, "", from_samples(source, SAMPLE_RATE))
    if clip.seconds > longest_s:
        raise AudioError(
            f"the recording lasts {clip.seconds:.0f} s; at most {longest_s:.0f} s fit this model: "
            "cut it into shorter pieces"
        )
    return clip


def to_transcript(
    clip: Clip,
    options: TranscribeOptions,
    clock: PhaseClock,
    *,
    model: str,
    engine: str,
    lora: bool | None,
    stopped: bool,
    elapsed_ms: float,
    device: torch.device,
) -> Transcript:
    """The transcript of a clip whose job is over."""
    row = clip.row
    ids, logprobs = ([], []) if row is None else (row.ids, row.logprobs)
    segment = Segment(0.0, clip.seconds, clip.text, confidence(logprobs))
    return Transcript(
        file=clip.name,
        text=clip.text,
        segments=(segment,) if clip.text else (),
        words=clip.words,
        language=options.target_language or options.language,
        model=model,
        engine=engine,
        lora=lora,
        decoding=options.decoding,
        token_ids=tuple(ids),
        audio_s=clip.seconds,
        phases=tuple(PhaseTime(name, ms) for name, ms in clock.milliseconds()),
        end_to_end_ms=elapsed_ms,
        rtf=elapsed_ms / 1000 / clip.seconds,
        time_to_first_token_ms=clip.first_text_ms,
        new_tokens=len(ids),
        new_tokens_per_s=tokens_per_second(len(ids), 1, clock),
        peak_memory_bytes=peak_memory_bytes(device),
        draft=clip.draft,
        warnings=clip.warnings(options, stopped=stopped),
    )


def tokens_per_second(num_tokens: int, num_prefills: int, clock: PhaseClock) -> float | None:
    """New tokens a second of decoding; each prefill's own first token is not counted."""
    seconds = sum(clock.seconds(name) for name in AFTER_PREFILL)
    counted = num_tokens - num_prefills
    return counted / seconds if counted > 0 and seconds > 0 else None
