"""The one-call path: recordings -> transcripts, as a stream of events. Opens the phase marks.

In: recordings and options. Out: events as they happen, one :class:`Finished` per clip at the end.
Clips of one call go through the encoder and the decoder as one batch; masks make each clip's text
the one it would get alone.

Silence is caught twice, before any word can be invented: by level, before the encoder runs, and by
the CTC head, before the decoder does.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from core import phases
from core.alignment import align_words
from core.audio import load_audio
from core.beam import beam_search
from core.catalog import CatalogEntry
from core.container import Source
from core.drafting import speculate
from core.engine import Engine
from core.features import LogMel, pad_features
from core.generate import CANCELLED, LENGTH, LOOP, Prompts, Row, generate
from core.heard import hears_speech, read_greedily
from core.lora import switch
from core.memory import peak_memory_bytes, reset_peak_memory
from core.model import GraniteSpeech, check_audio_places
from core.options import Event, Finished, PartialText, PhaseDone, PhaseStarted, TranscribeOptions
from core.phases import PhaseClock
from core.prompts import PromptBuilder
from core.samples import SAMPLE_RATE, AudioError, from_samples, is_silent
from core.tokenizer import StreamDecoder, Tokenizer
from core.transcript import DraftReport, PhaseTime, Segment, Transcript, Word
from core.words import confidence, split_words

NO_SPEECH = "no speech was heard in this recording"
CUT_SHORT = "the text was cut at {limit} tokens; allow more to see the rest"
REPEATING = "the model began to repeat itself; the repetition was left out"
STOPPED = "stopped before the end of the text"


AFTER_PREFILL = (phases.DECODE, phases.DRAFT, phases.VERIFY)


@dataclass(frozen=True)
class Parts:
    """What a transcription needs of a loaded checkpoint."""

    model: GraniteSpeech
    tokenizer: Tokenizer
    prompts: PromptBuilder
    front_end: LogMel
    entry: CatalogEntry
    max_audio_s: float
    device: torch.device
    dtype: torch.dtype


@dataclass
class Clip:
    """One recording on its way through a job. row: its generation, once there is one."""

    index: int
    name: str
    waveform: Tensor
    row: Row | None = None
    heard: str = ""
    ctc_logits: Tensor | None = None
    words: tuple[Word, ...] = ()
    text: str = ""
    draft: DraftReport | None = None
    first_text_ms: float | None = None
    decoder: StreamDecoder | None = None
    seen: int = 0
    warnings: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Length of the recording."""
        return self.waveform.shape[0] / SAMPLE_RATE


@dataclass
class Job:
    """One call: a batch of clips, how to treat them, and the clock that times them.

    lora is on, off, or None where the checkpoint has no adapter.
    """

    parts: Parts
    engine: Engine
    options: TranscribeOptions
    lora: bool | None
    cancelled: Callable[[], bool]
    clock: PhaseClock

    def run(self, sources: Sequence[Source | Tensor]) -> Iterator[Event]:
        """Events of the whole job.

        Raises:
            AudioError: a source is no readable recording.
            ValueError: the request does not fit the model.
        """
        reset_peak_memory(self.parts.device)
        clips = yield from self._decode_audio(sources)
        loud = [c for c in clips if not (self.options.skip_silence and is_silent(c.waveform))]
        speaking, audio = (yield from self._hear(loud)) if loud else ([], None)
        if speaking and audio is not None:
            yield from self._write(speaking, audio)
        elapsed_ms = 1000 * self.clock.elapsed()
        for clip in clips:
            yield Finished(clip.index, self._transcript(clip, elapsed_ms))

    def _decode_audio(
        self, sources: Sequence[Source | Tensor]
    ) -> Generator[Event, None, list[Clip]]:
        yield PhaseStarted(0, phases.DECODE_AUDIO)
        with self.clock.mark(phases.DECODE_AUDIO):
            clips = [self._read(index, source) for index, source in enumerate(sources)]
        yield self._done(phases.DECODE_AUDIO)
        return clips

    def _read(self, index: int, source: Source | Tensor) -> Clip:
        limit = self.parts.max_audio_s
        if not isinstance(source, Tensor):
            waveform = load_audio(source, max_seconds=limit)
            return Clip(index, str(source) if isinstance(source, str | Path) else "", waveform)
        clip = Clip(index, "", from_samples(source, SAMPLE_RATE))
        if clip.seconds > limit:
            raise AudioError(
                f"the recording lasts {clip.seconds:.0f} s; at most {limit:.0f} s fit this model: "
                "cut it into shorter pieces"
            )
        return clip

    def _hear(self, clips: list[Clip]) -> Generator[Event, None, tuple[list[Clip], Tensor | None]]:
        """Features, encoder, projector; the clips with speech and their embeddings [B, A, E]."""
        parts = self.parts
        with self.clock.mark(phases.FEATURES):
            features = [parts.front_end(clip.waveform.to(parts.device)) for clip in clips]
            lengths = [t.shape[0] for t in features]
            padded = pad_features(features, self.engine.frames_bucket(max(lengths)))
            values = padded.values.to(parts.dtype)
        yield self._done(phases.FEATURES)
        yield PhaseStarted(0, phases.ENCODER)
        rows = self._switch(len(clips))
        with self.clock.mark(phases.ENCODER):
            real = torch.tensor(lengths, device=parts.device)
            encoded = self.engine.encode(values, real, rows)
        yield self._done(phases.ENCODER)
        speaking = [
            row
            for row, length in enumerate(lengths)
            if not self.options.skip_silence or hears_speech(encoded.ctc_logits[row, :length])
        ]
        if not speaking:
            return [], None
        with self.clock.mark(phases.PROJECTOR):
            audio = self.engine.project(encoded.frames, rows)
        yield self._done(phases.PROJECTOR)
        for row in speaking:
            clips[row].row = Row(self._prompt(lengths[row]))
            clips[row].ctc_logits = encoded.ctc_logits[row, : lengths[row]]
            if self.options.decoding == "speculative":
                heard = read_greedily(encoded.ctc_logits[row, : lengths[row]])
                clips[row].heard = " ".join(heard.split())
        return [clips[row] for row in speaking], audio[speaking]

    def _prompt(self, num_frames: int) -> list[int]:
        places = self.parts.model.num_audio_tokens(num_frames)
        ids = self.parts.prompts.speech(self.options.request(), places)
        check_audio_places(ids, self.parts.model.config.audio_token_id, places)
        return ids

    def _write(self, clips: list[Clip], audio: Tensor) -> Iterator[Event]:
        """Prefill and decode; partial texts as they come."""
        steps = self._steps(clips, audio)
        yield PhaseStarted(0, phases.PREFILL)
        for number, rows in enumerate(steps):
            if number == 0:
                yield self._done(phases.PREFILL)
                yield PhaseStarted(0, phases.DECODE)
            with self.clock.mark(phases.DETOKENIZE):
                changed = [
                    clip for clip, row in zip(clips, rows, strict=True) if self._show(clip, row)
                ]
            for clip in changed:
                yield PartialText(clip.index, clip.text, clip.seen)
        with self.clock.mark(phases.DETOKENIZE):
            for clip in clips:
                self._settle(clip)

    def _steps(self, clips: list[Clip], audio: Tensor) -> Iterator[list[Row]]:
        """The rows after every pass, by the way of decoding that was asked for."""
        settings, config = self.options.generation(), self.parts.model.config.decoder
        ids = [clip.row.prompt for clip in clips if clip.row is not None]
        prompts = Prompts(ids, audio, self._switch(len(clips)))
        if self.options.decoding != "speculative":
            search = beam_search if settings.num_beams > 1 else generate
            yield from search(
                self.engine, config, prompts, settings, clock=self.clock, cancelled=self.cancelled
            )
            return
        for work in speculate(
            self.engine,
            config,
            prompts,
            [clip.heard for clip in clips],
            self.parts.tokenizer,
            settings,
            clock=self.clock,
            cancelled=self.cancelled,
        ):
            for clip, item in zip(clips, work, strict=True):
                clip.draft = item.report()
            yield [item.row for item in work]

    def _show(self, clip: Clip, row: Row) -> bool:
        """Bring the clip's text up to its row; whether there is anything new to show."""
        clip.row = row
        if row.ids and clip.first_text_ms is None:
            clip.first_text_ms = 1000 * self.clock.elapsed()
        if self.options.decoding == "beam":  # a leading hypothesis may replace another
            text, clip.seen = self.parts.tokenizer.decode(row.ids), len(row.ids)
            changed, clip.text = text != clip.text, text
            return changed
        clip.decoder = clip.decoder or StreamDecoder(self.parts.tokenizer)
        pieces = [clip.decoder.push(token) for token in row.ids[clip.seen :]]
        clip.seen, clip.text = len(row.ids), clip.decoder.text
        return any(pieces)

    def _settle(self, clip: Clip) -> None:
        """The final text and its words, with times where the text is what was said."""
        row, tokenizer = clip.row, self.parts.tokenizer
        assert row is not None
        clip.text = tokenizer.decode(row.ids).strip()
        clip.words = split_words(tokenizer, row.ids, row.logprobs)
        if self.options.task == "transcribe" and clip.ctc_logits is not None:
            step = self.parts.front_end.config.seconds_of_frames(1)
            clip.words = tuple(align_words(clip.words, clip.ctc_logits, step))

    def _switch(self, batch: int) -> Tensor | None:
        if self.lora is None:
            return None
        like = torch.empty(0, dtype=self.parts.dtype, device=self.parts.device)
        return switch([self.lora] * batch, like=like)

    def _done(self, name: str) -> PhaseDone:
        return PhaseDone(0, name, 1000 * self.clock.seconds(name))

    def _transcript(self, clip: Clip, elapsed_ms: float) -> Transcript:
        row = clip.row
        ids, logprobs = ([], []) if row is None else (row.ids, row.logprobs)
        if row is None:
            clip.warnings.append(NO_SPEECH)
        elif row.stop == LENGTH and not self.options.ignore_eos:
            clip.warnings.append(CUT_SHORT.format(limit=self.options.max_new_tokens))
        elif row.stop == LOOP:
            clip.warnings.append(REPEATING)
        elif row.stop == CANCELLED:
            clip.warnings.append(STOPPED)
        segment = Segment(0.0, clip.seconds, clip.text, confidence(logprobs))
        return Transcript(
            file=clip.name,
            text=clip.text,
            segments=(segment,) if clip.text else (),
            words=clip.words,
            language=self.options.target_language or self.options.language,
            model=self.parts.entry.name,
            engine=self.engine.name,
            lora=self.lora,
            decoding=self.options.decoding,
            token_ids=tuple(ids),
            audio_s=clip.seconds,
            phases=tuple(PhaseTime(name, ms) for name, ms in self.clock.milliseconds()),
            end_to_end_ms=elapsed_ms,
            rtf=elapsed_ms / 1000 / clip.seconds,
            time_to_first_token_ms=clip.first_text_ms,
            new_tokens=len(ids),
            new_tokens_per_s=tokens_per_second(len(ids), 1, self.clock),
            peak_memory_bytes=peak_memory_bytes(self.parts.device),
            draft=clip.draft,
            warnings=tuple(clip.warnings),
        )


def tokens_per_second(num_tokens: int, num_prefills: int, clock: PhaseClock) -> float | None:
    """New tokens a second of decoding; each prefill's own first token is not counted."""
    seconds = sum(clock.seconds(name) for name in AFTER_PREFILL)
    counted = num_tokens - num_prefills
    return counted / seconds if counted > 0 and seconds > 0 else None


@torch.inference_mode()
def stream(
    parts: Parts,
    engine: Engine,
    sources: Sequence[Source | Tensor],
    options: TranscribeOptions,
    *,
    lora: bool | None,
    cancelled: Callable[[], bool] = lambda: False,
    clock: PhaseClock | None = None,
) -> Iterator[Event]:
    """Transcribe ``sources`` (paths, bytes, binary files, or waveforms [N] at 16 kHz) as one batch.

    Raises:
        AudioError: a source is no readable recording.
        ValueError: the request does not fit the model.
    """
    timer = clock or PhaseClock(parts.device)
    yield from Job(parts, engine, options, lora, cancelled, timer).run(sources)
