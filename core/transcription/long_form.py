"""Long recordings: span after span of speech, in small batches, stitched into one transcript.

In: a recording of any length. Out: events as they come; the last is one transcript whose times are
those of the file. Memory is constant in the length: the file is decoded, cut and forgotten as it is
read. A journal, if one is given, lets a run that was stopped go on where it was; it is deleted once
the recording is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from core import phases
from core.audio.container import Source
from core.audio.decode import probe, stream_audio
from core.audio.report import DecodeReport
from core.audio.segmentation import SpeechSegment, speech_spans, whole_spans
from core.audio.vad import NoSpeech, SpeechDetector
from core.audio.waveform import SAMPLE_RATE, from_samples
from core.memory import within_memory
from core.phases import PhaseClock
from core.text.transcript import DraftReport, Transcript
from core.transcription.clip import OUTSIDE
from core.transcription.options import Event, Finished, PartialText, Progress
from core.transcription.recognizer import RecognitionRequest
from core.transcription.results import Content, build_transcript
from core.transcription.resume import Journal, Key
from core.transcription.transcribe import TranscriptionBatch

CHUNK_S = 30.0
NEW_NUMBERS = "longer than one pass: the speakers' numbers begin again in every part"


def seconds_of(source: Source | Tensor) -> float | None:
    """Return the length of a recording where its header (or the tensor) says it, else None.

    A header may be wrong: :func:`core.transcription.clip.read_clip` measures.
    """
    if isinstance(source, Tensor):
        return source.shape[-1] / SAMPLE_RATE
    return probe(source).duration_s


@dataclass
class LongJob:
    """One long recording. longest_s bounds its spans; journal keeps finished ones on disk."""

    request: RecognitionRequest
    cancelled: Callable[[], bool]
    clock: PhaseClock
    longest_s: float
    journal: Journal | None = None
    finished: list[Transcript] = field(default_factory=list)
    first_text_ms: float | None = None
    heard_s: float = 0.0
    done_s: float = 0.0
    report: DecodeReport = field(default_factory=DecodeReport)

    def run(self, source: Source | Tensor, index: int) -> Iterator[Event]:
        """Transcribe span after span.

        Yields:
            Events as they come; the last is the whole transcript.

        Raises:
            AudioError: no readable recording.
            UserError: the request does not fit the model.
        """
        total_s = seconds_of(source)
        spans = self._spans(source)
        while not self.cancelled():
            with self.clock.mark(phases.DECODE_AUDIO):
                batch = list(islice(spans, self.request.options.batch_size))
            if not batch:
                break
            yield from self._transcribe(batch, index)
            if not any(transcript.stopped for transcript in self.finished):
                self.done_s = batch[-1].end_s
            yield Progress(index, batch[-1].end_s, total_s)
        name = str(source) if isinstance(source, str | Path) else ""
        stopped = self.cancelled()
        if self.journal is not None and not stopped:
            self.journal.remove()
        # A recording that was read to its end is as long as it was, whatever its header says.
        audio_s = total_s if stopped and total_s is not None else self.heard_s
        yield Finished(index, self._stitch(name, audio_s, stopped=stopped))

    def _spans(self, source: Source | Tensor) -> Iterator[SpeechSegment]:
        """Spans of speech, or all of the recording where silence is to be heard too."""
        chunks = self._chunks(source)
        if not self.request.options.skip_silence:
            return whole_spans(chunks, longest_s=self.longest_s)
        return speech_spans(chunks, SpeechDetector().probability, longest_s=self.longest_s)

    def _chunks(self, source: Source | Tensor) -> Iterator[Tensor]:
        chunks: Iterator[Tensor]
        if isinstance(source, Tensor):
            chunks = iter(from_samples(source, SAMPLE_RATE).split(round(CHUNK_S * SAMPLE_RATE)))
        else:
            chunks = stream_audio(source, chunk_s=CHUNK_S, report=self.report)
        for chunk in chunks:
            self.heard_s += chunk.shape[0] / SAMPLE_RATE
            yield chunk

    def _transcribe(self, batch: Sequence[SpeechSegment], index: int) -> Iterator[Event]:
        """One batch of spans; those the journal knows are not run again."""
        known = [None if self.journal is None else self.journal.get(_key(s)) for s in batch]
        todo = [span for span, old in zip(batch, known, strict=True) if old is None]
        texts = dict.fromkeys(range(len(todo)), "")
        new: dict[Key, Transcript] = {}
        job = TranscriptionBatch(self.request, self.cancelled, self.clock, spoken=True)
        for event in job.run([span.waveform for span in todo]) if todo else ():
            if isinstance(event, PartialText):
                if self.first_text_ms is None:
                    self.first_text_ms = 1000 * self.clock.elapsed()
                texts[event.index] = event.text
                yield PartialText(index, self._text_so_far(texts.values()), event.num_tokens)
            elif isinstance(event, Finished):
                span = todo[event.index]
                new[_key(span)] = shifted(event.transcript, span.start_s)
        for span, old in zip(batch, known, strict=True):
            transcript = old or new[_key(span)]
            if old is None and self.journal is not None and not transcript.stopped:
                self.journal.add(_key(span), transcript)
            self.finished.append(transcript)

    def _text_so_far(self, latest: Iterable[str] = ()) -> str:
        texts = [*(t.text for t in self.finished), *latest]
        return " ".join(text.strip() for text in texts if text.strip())

    def _stitch(self, name: str, audio_s: float, *, stopped: bool) -> Transcript:
        """The spans' transcripts as one."""
        done, elapsed_ms = self.finished, 1000 * self.clock.elapsed()
        of_spans = {OUTSIDE, *(reason.value for reason in NoSpeech)}
        warnings = [*self.report.warnings]
        warnings += [w for t in done for w in t.warnings if w not in of_spans]
        written = [t for t in done if t.text]
        if 2 * sum(OUTSIDE in t.warnings for t in written) > len(written):
            warnings.append(OUTSIDE)  # one odd span in an hour is no news
        if not stopped and not any(t.text for t in done):
            warnings.append(NoSpeech.NO_SPEECH.value)
        if len(written) > 1 and any(t.has_speakers for t in written):
            warnings.append(NEW_NUMBERS)
        drafts = [t.draft for t in done if t.draft is not None]
        content = Content(
            file=name,
            audio_s=audio_s,
            heard_s=self.done_s if stopped else audio_s,
            text=self._text_so_far(),
            segments=tuple(segment for t in done for segment in t.segments),
            words=tuple(word for t in done for word in t.words),
            token_ids=tuple(token for t in done for token in t.token_ids),
            num_passes=len(done),
            first_text_ms=self.first_text_ms,
            draft=_sum(drafts) if drafts else None,
            warnings=tuple(dict.fromkeys(warnings)),
            stopped=stopped,
        )
        return build_transcript(content, self.request, self.clock, elapsed_ms)


def shifted(transcript: Transcript, by_s: float) -> Transcript:
    """Return the transcript with its times ``by_s`` seconds later."""
    return replace(
        transcript,
        segments=tuple(
            replace(s, start=s.start + by_s, end=s.end + by_s) for s in transcript.segments
        ),
        words=tuple(
            w
            if w.start is None or w.end is None
            else replace(w, start=w.start + by_s, end=w.end + by_s)
            for w in transcript.words
        ),
    )


def _key(span: SpeechSegment) -> Key:
    return (round(span.start_s, 3), round(span.end_s, 3))


def _sum(drafts: Sequence[DraftReport]) -> DraftReport:
    texts = [d.text for d in drafts if d.text is not None]
    return DraftReport(
        drafted=sum(d.drafted for d in drafts),
        accepted=sum(d.accepted for d in drafts),
        passes=sum(d.passes for d in drafts),
        text=" ".join(filter(None, texts)) if texts else None,
    )


@torch.inference_mode()
def stream_long(job: LongJob, source: Source | Tensor, index: int = 0) -> Iterator[Event]:
    """Run ``job`` over ``source``.

    Yields:
        Events as they come; the last is the whole transcript.

    Raises:
        AudioError: no readable recording.
        OutOfMemory: there was not enough memory for a batch of spans.
        UserError: the request does not fit the model.
    """
    yield from within_memory(job.run(source, index), job.request.recognizer.checkpoint.device)
