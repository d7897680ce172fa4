"""The one-call path: recordings -> transcripts, as a stream of events. Opens the phase marks.

In: recordings and options. Out: events as they happen, one :class:`Finished` per clip at the end.
Clips of one call go through the encoder and the decoder as one batch; masks make each clip's text
the one it would get alone.

Silence is caught twice, before any word can be invented: by level, before the encoder runs, and by
the CTC head, before the decoder does. A request that is stopped ends after the phase it is in;
everything it allocated is its own and goes with it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from core import phases
from core.audio.container import Source
from core.audio.waveform import is_silent
from core.engine.encode import encode_in_groups
from core.engine.stages import Engine
from core.generation.speculative_relaxed import accept_without_decoder, ctc_draft
from core.memory import reset_peak_memory, within_memory
from core.model.ctc import contains_speech
from core.model.encoder import EncoderOutput
from core.model.features import pad_features
from core.model.lora import switch
from core.phases import PhaseClock
from core.text.transcript import DraftReport
from core.transcription.clip import Clip, read_clip, to_transcript
from core.transcription.components import Components
from core.transcription.decode import acceptance_of, decode_tokens
from core.transcription.options import (
    FAST_DRAFT,
    Event,
    Finished,
    PartialText,
    PhaseDone,
    PhaseStarted,
    TranscribeOptions,
)
from core.transcription.out_of_domain import OutOfDomainScale


@dataclass
class TranscriptionBatch:
    """One call: a batch of clips, how to treat them, and the clock that times them.

    lora is on, off, or None where the checkpoint has no adapter. stopped: whether the caller asked
    to stop before the decoder began.
    """

    components: Components
    engine: Engine
    options: TranscribeOptions
    lora: bool | None
    cancelled: Callable[[], bool]
    clock: PhaseClock
    stopped: bool = False

    def run(self, sources: Sequence[Source | Tensor]) -> Iterator[Event]:
        """Events of the whole job.

        Raises:
            AudioError: a source is no readable recording.
            ValueError: the request does not fit the model.
        """
        reset_peak_memory(self.components.device)
        clips = yield from self._decode_audio(sources)
        with self.clock.mark(phases.DECODE_AUDIO):
            skipping = self.options.skip_silence
            loud = [clip for clip in clips if not (skipping and is_silent(clip.waveform))]
        if loud and not self._stop_asked():
            yield from self._encode(loud)
        elapsed_ms = 1000 * self.clock.elapsed()
        for clip in clips:
            done = to_transcript(
                clip,
                self.options,
                self.clock,
                model=self.components.model_info.name,
                engine=self.engine.name,
                lora=self.lora,
                stopped=self.stopped,
                elapsed_ms=elapsed_ms,
                device=self.components.device,
            )
            yield Finished(clip.index, done)

    def _stop_asked(self) -> bool:
        self.stopped = self.stopped or self.cancelled()
        return self.stopped

    def _decode_audio(
        self, sources: Sequence[Source | Tensor]
    ) -> Generator[Event, None, list[Clip]]:
        yield PhaseStarted(0, phases.DECODE_AUDIO)
        with self.clock.mark(phases.DECODE_AUDIO):
            limit = self.components.max_audio_s
            clips = [read_clip(index, source, limit) for index, source in enumerate(sources)]
        yield self._done(phases.DECODE_AUDIO)
        return clips

    def _encode(self, clips: list[Clip]) -> Iterator[Event]:
        """Features and encoder; then the clips in which there is speech are written.

        Whether there is speech is read from the encoder's CTC logits and counted as its time.
        """
        components = self.components
        with self.clock.mark(phases.FEATURES):
            features = [
                components.feature_extractor(clip.waveform.to(components.device)) for clip in clips
            ]
            lengths = [t.shape[0] for t in features]
            padded = pad_features(features, self.engine.frames_bucket(max(lengths)))
            values = padded.values.to(components.dtype)
        yield self._done(phases.FEATURES)
        if self._stop_asked():
            return
        yield PhaseStarted(0, phases.ENCODER)
        with self.clock.mark(phases.ENCODER):
            encoded = encode_in_groups(self.engine, values, lengths, self._switch(len(clips)))
            speaking = [
                row
                for row, length in enumerate(lengths)
                if not self.options.skip_silence
                or contains_speech(encoded.ctc_logits[row, :length])
            ]
        yield self._done(phases.ENCODER)
        if not speaking or self._stop_asked():
            return
        for row in speaking:
            clips[row].frames = lengths[row]
            clips[row].ctc_logits = encoded.ctc_logits[row, : lengths[row]]
        if self.options.decoding in ("speculative", FAST_DRAFT):
            with self.clock.mark(phases.DRAFT):
                for row in speaking:
                    self._draft(clips[row], encoded, row)
        yield from self._project_and_decode(clips, speaking, encoded.frames)

    def _draft(self, clip: Clip, encoded: EncoderOutput, row: int) -> None:
        """What the CTC head reads; in the lossy way it may be the text already."""
        components, acceptance = self.components, acceptance_of(self.components, self.options)
        heard = ctc_draft(encoded, row, clip.frames, components.bpe_head, components.tokenizer)
        clip.heard = heard.text
        if acceptance is not None and not self.options.ignore_eos:
            limit = self.options.max_new_tokens
            clip.row = accept_without_decoder(heard, acceptance, components.tokenizer, limit)
        if clip.row is not None:
            num_tokens = len(clip.row.ids)
            clip.draft = DraftReport(drafted=num_tokens, accepted=num_tokens, passes=0)
            clip.first_text_ms = 1000 * self.clock.elapsed()

    def _project_and_decode(
        self, clips: list[Clip], speaking: list[int], frames: Tensor
    ) -> Iterator[Event]:
        asked = [row for row in speaking if clips[row].row is None]
        if asked:
            with self.clock.mark(phases.PROJECTOR):
                audio = self.engine.project(frames, self._switch(len(clips)))[asked]
            yield self._done(phases.PROJECTOR)
            if not self._stop_asked():
                yield from self._decode([clips[row] for row in asked], audio)
        frame_s = self.components.feature_extractor.config.seconds_of_frames(1)
        said = self.options.task == "transcribe"  # a translation has no times in the recording
        with self.clock.mark(phases.DETOKENIZE):
            for clip in (clips[row] for row in speaking if clips[row].row is not None):
                clip.finish_text(
                    self.components.tokenizer, frame_s if said else None, self._scale()
                )

    def _decode(self, clips: list[Clip], audio: Tensor) -> Iterator[Event]:
        """Prefill and decode; partial texts as they come."""
        whole = self.options.decoding == "beam"
        yield PhaseStarted(0, phases.PREFILL)
        steps = decode_tokens(
            self.components,
            self.engine,
            self.options,
            clips,
            audio,
            lora=self._switch(len(clips)),
            clock=self.clock,
            cancelled=self.cancelled,
        )
        for number, rows in enumerate(steps):
            if number == 0:
                yield self._done(phases.PREFILL)
                yield PhaseStarted(0, phases.DECODE)
            with self.clock.mark(phases.DETOKENIZE):
                elapsed_s, tokenizer = self.clock.elapsed(), self.components.tokenizer
                changed = [
                    clip
                    for clip, row in zip(clips, rows, strict=True)
                    if clip.update_text(row, tokenizer, elapsed_s, whole=whole)
                ]
            for clip in changed:
                yield PartialText(clip.index, clip.text, clip.seen)

    def _scale(self) -> OutOfDomainScale | None:
        """The checkpoint's scale where it was fitted: its own adapter, transcribing."""
        fitting = self.options.task == "transcribe" and self.options.adapter is None
        return self.components.outside if fitting and self.lora else None

    def _switch(self, batch: int) -> Tensor | None:
        if self.lora is None:
            return None
        like = torch.empty(0, dtype=self.components.dtype, device=self.components.device)
        return switch([self.lora] * batch, like=like)

    def _done(self, name: str) -> PhaseDone:
        return PhaseDone(0, name, 1000 * self.clock.seconds(name))


@torch.inference_mode()
def stream(
    components: Components,
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
        OutOfMemory: there was not enough memory for it.
        ValueError: the request does not fit the model.
    """
    timer = clock or PhaseClock(components.device)
    job = TranscriptionBatch(components, engine, options, lora, cancelled, timer)
    yield from within_memory(job.run(sources), components.device)
