"""One recording on its way through a batch: read, then followed as its text grows.

In: a source; later the hypotheses that were generated for it. Out: a :class:`Clip`, of which
:mod:`core.transcription.results` makes a transcript.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from core.audio.container import Source
from core.audio.decode import decode_audio
from core.audio.vad import NoSpeech
from core.audio.waveform import SAMPLE_RATE, from_samples
from core.generation.greedy import LENGTH, LOOP, Hypothesis
from core.text.alignment import align_words
from core.text.tokenizer import StreamDecoder, TextDecoder, Tokenizer
from core.text.transcript import DraftReport, Segment, Word
from core.text.words import split_words
from core.transcription.options import TranscribeOptions
from core.transcription.out_of_domain import OutOfDomainScale

CUT_SHORT = "the text was cut at {limit} tokens; allow more to see the rest"
REPEATING = "the model began to repeat itself; the repetition was left out"
OUTSIDE = "this recording is probably outside what the model knows: do not trust the text"


@dataclass
class Clip:
    """One recording and its recognition so far.

    Attributes:
        index: its place among the caller's recordings.
        name: its path, or "".
        waveform: [N] at 16 kHz.
        hypothesis: what was generated, once there is something.
        draft_text: what the CTC head read, where it drafts.
        frames: rows of ``ctc_logits`` that are real.
        ctc_logits: [T, V] of the encoder's CTC head.
        text, words: as they are by now.
        segments: parts of it, where it has any.
        draft: how the draft fared.
        first_text_ms: when the first token was there, from the start of the request.
        out_of_domain: whether the text deserves a warning.
        notes: what is worth knowing of how the recording was read.
        channels_cancel: its channels are opposite to each other, so little of it is left.
        no_speech: why nothing can be expected of it, once that was asked.
    """

    index: int
    name: str
    waveform: Tensor
    hypothesis: Hypothesis | None = None
    draft_text: str = ""
    frames: int = 0
    ctc_logits: Tensor | None = None
    words: tuple[Word, ...] = ()
    segments: tuple[Segment, ...] = ()
    text: str = ""
    draft: DraftReport | None = None
    first_text_ms: float | None = None
    decoder: StreamDecoder | None = None
    seen: int = 0
    out_of_domain: bool = False
    notes: tuple[str, ...] = ()
    channels_cancel: bool = False
    no_speech: NoSpeech | None = None

    @property
    def seconds(self) -> float:
        """Return the length of the recording."""
        return self.waveform.shape[0] / SAMPLE_RATE

    def update_text(
        self, row: Hypothesis, tokenizer: TextDecoder, elapsed_s: float, *, whole: bool
    ) -> bool:
        """Bring the text up to ``row``.

        Args:
            row: what was generated so far.
            tokenizer: makes text of it.
            elapsed_s: seconds since the request began.
            whole: decode all of it again: a leading beam may replace another.

        Returns:
            Whether there is anything new to show.
        """
        self.hypothesis = row
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
        """Settle the final text and its words.

        Args:
            tokenizer: makes text of ids.
            frame_s: seconds a frame, where words are to have times.
            scale: judges whether the recording is outside what the model knows.
        """
        assert self.hypothesis is not None
        self.text = tokenizer.decode(self.hypothesis.ids).strip()
        self.words = split_words(tokenizer, self.hypothesis.ids, self.hypothesis.logprobs)
        if frame_s is not None and self.ctc_logits is not None:
            self.words = tuple(
                align_words(self.words, self.ctc_logits, frame_s, audio_s=self.seconds)
            )
        if scale is not None and self.ctc_logits is not None:
            wordless = bool(self.text) and not any(map(str.isalnum, self.text))
            self.out_of_domain = wordless or scale.warns(self.ctc_logits, self.words)

    def warnings(self, options: TranscribeOptions, *, stopped: bool) -> tuple[str, ...]:
        """Return what the reader of the transcript should know."""
        if self.hypothesis is None:
            reason = self.no_speech or NoSpeech.NO_SPEECH
            return self.notes if stopped else (*self.notes, reason.value)
        told = REPEATING if self.hypothesis.stop == LOOP else None
        if self.hypothesis.stop == LENGTH and not options.ignore_eos:
            told = CUT_SHORT.format(limit=options.max_new_tokens)
        judged = (told, OUTSIDE if self.out_of_domain else None)
        return (*self.notes, *(warning for warning in judged if warning))


def read_clip(index: int, source: Source | Tensor, longest_s: float) -> Clip:
    """Read one recording, and measure that a file is no longer than its header says.

    Returns:
        A clip with its waveform and nothing recognised yet.

    Raises:
        AudioError: no readable recording; RecordingTooLong where a file has more than ``longest_s``
            seconds.
    """
    if not isinstance(source, Tensor):
        read = decode_audio(source, max_seconds=longest_s)
        name = str(source) if isinstance(source, str | Path) else ""
        return Clip(
            index, name, read.waveform, notes=read.warnings, channels_cancel=read.channels_cancel
        )
    return Clip(index, "", from_samples(source, SAMPLE_RATE))
