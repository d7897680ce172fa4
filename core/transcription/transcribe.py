"""The one-call path: recordings -> transcripts, as a stream of events. Opens the phase marks.

In: recordings and a request. Out: events as they happen, one :class:`Finished` per clip at the end.
Clips of one call go through the model as one batch; masks make each clip's text the one it would
get alone. What differs between model families is behind :class:`Recognizer`.

What is no speech is caught twice, before any word can be invented: by a detector, before the
encoder runs, and by the CTC head, before anything is written. A request that is stopped ends after
the phase it is in; everything it allocated is its own and goes with it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from core import phases
from core.audio.container import Source
from core.audio.vad import why_no_speech
from core.memory import reset_peak_memory, within_memory
from core.phases import PhaseClock
from core.transcription.clip import Clip, read_clip
from core.transcription.options import Event, Finished, PartialText, PhaseDone, PhaseStarted
from core.transcription.recognizer import Encoded, EncodedClips, RecognitionRequest
from core.transcription.results import build_transcript, content_of


@dataclass
class TranscriptionBatch:
    """One call: a batch of clips, how to treat them, and the clock that times them.

    Attributes:
        request: who recognises, and how.
        cancelled: asked after every phase and token; True ends the work.
        clock: times the phases.
        spoken: whether a detector has found speech in every clip already.
        stopped: whether the caller asked to stop before anything was written.
    """

    request: RecognitionRequest
    cancelled: Callable[[], bool]
    clock: PhaseClock
    spoken: bool = False
    stopped: bool = False

    def run(self, sources: Sequence[Source | Tensor]) -> Iterator[Event]:
        """Yield the events of the whole batch.

        Yields:
            Events as they happen, one :class:`Finished` per clip at the end.

        Raises:
            AudioError: a source is no readable recording.
            UserError: the request does not fit the model.
        """
        reset_peak_memory(self.request.recognizer.checkpoint.device)
        clips = yield from self._decode_audio(sources)
        with self.clock.mark(phases.DECODE_AUDIO):
            for clip in clips if self.request.options.skip_silence and not self.spoken else ():
                clip.no_speech = why_no_speech(clip.waveform, channels_cancel=clip.channels_cancel)
            speaking = [clip for clip in clips if clip.no_speech is None]
        if speaking and not self._stop_asked():
            yield from self._encode(speaking)
        elapsed_ms = 1000 * self.clock.elapsed()
        for clip in clips:
            content = content_of(clip, self.request, stopped=self.stopped)
            done = build_transcript(content, self.request, self.clock, elapsed_ms)
            yield Finished(clip.index, done)

    def _stop_asked(self) -> bool:
        self.stopped = self.stopped or self.cancelled()
        return self.stopped

    def _decode_audio(
        self, sources: Sequence[Source | Tensor]
    ) -> Generator[Event, None, list[Clip]]:
        yield PhaseStarted(0, phases.DECODE_AUDIO)
        with self.clock.mark(phases.DECODE_AUDIO):
            trusted_s = self.request.recognizer.longest_pass_s(self.request.options)
            clips = [read_clip(index, source, trusted_s) for index, source in enumerate(sources)]
        yield self._done(phases.DECODE_AUDIO)
        return clips

    def _encode(self, clips: list[Clip]) -> Iterator[Event]:
        """Encode the clips, then have those in which there is speech written.

        Whether there is speech is read from the CTC logits and counted as the encoder's time.

        Yields:
            Events of these phases and of the family's own.
        """
        request, recognizer = self.request, self.request.recognizer
        with self.clock.mark(phases.FEATURES):
            features = recognizer.extract([clip.waveform for clip in clips], request.engine)
        yield self._done(phases.FEATURES)
        if self._stop_asked():
            return
        yield PhaseStarted(0, phases.ENCODER)
        with self.clock.mark(phases.ENCODER):
            encoded = recognizer.encode(features, request)
            logits = [
                encoded.ctc_logits[row, :length] for row, length in enumerate(encoded.lengths)
            ]
            speaking = [
                row
                for row, found in enumerate(logits)
                if not request.options.skip_silence or recognizer.contains_speech(found)
            ]
        yield self._done(phases.ENCODER)
        if not speaking or self._stop_asked():
            return
        for row in speaking:
            clips[row].frames, clips[row].ctc_logits = encoded.lengths[row], logits[row]
        yield from self._recognise([clips[row] for row in speaking], speaking, encoded)

    def _recognise(self, clips: list[Clip], rows: list[int], encoded: Encoded) -> Iterator[Event]:
        """The family's own stages; partial texts as they come, final ones at the end."""
        request, recognizer = self.request, self.request.recognizer
        whole = not recognizer.appends(request.options)
        batch = EncodedClips(clips, rows, encoded)
        for found in recognizer.recognise(batch, request, self.clock, self._stop_asked):
            if not isinstance(found, list):
                yield found
                continue
            with self.clock.mark(phases.DETOKENIZE):
                elapsed_s, tokenizer = self.clock.elapsed(), recognizer.tokenizer
                changed = [
                    clip
                    for clip, row in zip(clips, found, strict=True)
                    if clip.update_text(row, tokenizer, elapsed_s, whole=whole)
                ]
            for clip in changed:
                yield PartialText(clip.index, clip.text, clip.seen)
        with self.clock.mark(phases.DETOKENIZE):
            for clip in clips:
                if clip.hypothesis is not None:
                    recognizer.finish(clip, request)

    def _done(self, name: str) -> PhaseDone:
        return PhaseDone(0, name, 1000 * self.clock.seconds(name))


@torch.inference_mode()
def stream(
    sources: Sequence[Source | Tensor],
    request: RecognitionRequest,
    *,
    cancelled: Callable[[], bool] = lambda: False,
    clock: PhaseClock | None = None,
) -> Iterator[Event]:
    """Transcribe ``sources`` (paths, bytes, binary files, or waveforms [N] at 16 kHz) as one batch.

    Args:
        sources: the recordings.
        request: who recognises, and how.
        cancelled: asked after every phase and token.
        clock: a fresh clock of the caller's.

    Yields:
        Events as they happen.

    Raises:
        AudioError: a source is no readable recording.
        OutOfMemory: there was not enough memory for it.
        UserError: the request does not fit the model.
    """
    device = request.recognizer.checkpoint.device
    batch = TranscriptionBatch(request, cancelled, clock or PhaseClock(device))
    yield from within_memory(batch.run(sources), device)
