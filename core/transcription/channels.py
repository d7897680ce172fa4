"""A stereo recording whose channels are one speaker each: both transcribed, merged by time.

In: both channels, and what transcribes one. Out: events of one recording; the last is a transcript
whose words know their speaker, 1 for the left channel and 2 for the right. Any model will do.
Channels are worked through one after the other, on one clock, so that times are those of both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from core.audio.waveform import SAMPLE_RATE
from core.text.speaker_turns import turn_segments
from core.text.transcript import Transcript, Word
from core.transcription.options import Event, Finished, PartialText, Progress

PAUSE_S = 0.5  # ends an utterance: what two people say at once stays readable


@dataclass(frozen=True)
class _Utterance:
    start_s: float
    words: tuple[Word, ...]


def stream_channels(
    name: str,
    channels: Sequence[Tensor],
    transcribe: Callable[[Tensor], Iterator[Event]],
    index: int,
) -> Iterator[Event]:
    """Transcribe channel after channel.

    Args:
        name: of the recording, or "".
        channels: waveforms [N] at 16 kHz, a speaker each.
        transcribe: makes the events of one, all on one clock.
        index: of the recording among the caller's.

    Yields:
        Events as they come; the last is the whole transcript.
    """
    done: list[Transcript] = []
    total_s = sum(channel.shape[0] for channel in channels) / SAMPLE_RATE
    for channel in channels:
        before = " ".join(transcript.text for transcript in done if transcript.text)
        before_s = sum(transcript.audio_s for transcript in done)
        for event in transcribe(channel):
            if isinstance(event, Finished):
                done.append(event.transcript)
            elif isinstance(event, PartialText):
                yield PartialText(index, f"{before} {event.text}".strip(), event.num_tokens)
            elif isinstance(event, Progress):
                yield Progress(index, before_s + event.done_s, total_s)
            else:
                yield replace(event, index=index)
    yield Finished(index, merge_channels(name, done))


def merge_channels(name: str, done: Sequence[Transcript]) -> Transcript:
    """Merge the transcripts of channels, in order, that were made on one clock.

    Args:
        name: of the recording, or "".
        done: one for each channel; the last has the times of all.

    Returns:
        One transcript, in turns.
    """
    utterances = [
        utterance
        for speaker, transcript in enumerate(done, start=1)
        for utterance in _utterances(transcript.words, speaker)
    ]
    utterances.sort(key=lambda utterance: utterance.start_s)
    words = tuple(word for utterance in utterances for word in utterance.words)
    last, audio_s = done[-1], max(transcript.audio_s for transcript in done)
    new_tokens = sum(transcript.new_tokens for transcript in done)
    paced = [one for one in done if one.new_tokens and one.new_tokens_per_s]
    per_s = paced[-1].new_tokens_per_s if paced else None
    first = [one.time_to_first_token_ms for one in done if one.time_to_first_token_ms is not None]
    return replace(
        last,
        file=name,
        text=" ".join(word.text for word in words),
        segments=tuple(turn_segments(words, audio_s)),
        words=words,
        token_ids=tuple(token for one in done for token in one.token_ids),
        audio_s=audio_s,
        rtf=last.end_to_end_ms / 1000 / audio_s if audio_s else last.rtf,
        time_to_first_token_ms=min(first, default=None),
        new_tokens=new_tokens,
        new_tokens_per_s=per_s and per_s * new_tokens / paced[-1].new_tokens,
        peak_memory_bytes=max(one.peak_memory_bytes for one in done),
        draft=None,
        warnings=tuple(
            f"channel {number}: {warning}"
            for number, one in enumerate(done, start=1)
            for warning in one.warnings
        ),
    )


def _utterances(words: Sequence[Word], speaker: int) -> Iterator[_Utterance]:
    """Yield what one speaker says between pauses; a word without times stays with those before."""
    group: list[Word] = []
    start_s = end_s = 0.0
    for word in words:
        if group and word.start is not None and word.start - end_s >= PAUSE_S:
            yield _Utterance(start_s, tuple(group))
            group = []
        if not group:
            start_s = end_s if word.start is None else word.start
        group.append(replace(word, speaker=speaker))
        end_s = end_s if word.end is None else word.end
    if group:
        yield _Utterance(start_s, tuple(group))
