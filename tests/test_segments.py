"""Cutting long recordings: scripted speech probabilities, so that every border is known."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from core.audio.segmentation import (
    FRAME_S,
    MARGIN_S,
    PAUSE_S,
    SpeechSegment,
    speech_spans,
    whole_frames,
    whole_spans,
)
from core.audio.vad import FRAME


def spans_of(script: str, *, longest_s: float = 30.0, chunk: int = 700) -> list[SpeechSegment]:
    """Spans of a recording with one character a frame: '#' speech, '+' maybe, anything else none.

    Every sample of frame i has the value i, so that a span's samples tell where it came from.
    """
    samples = torch.arange(len(script)).repeat_interleave(FRAME).float()
    likely = {"#": 0.9, "+": 0.55}

    def probability(frame: Tensor) -> float:
        return likely.get(script[int(frame[0])], 0.01)

    return list(speech_spans(iter(samples.split(chunk)), probability, longest_s=longest_s))


def frames_of(span: SpeechSegment) -> tuple[int, int]:
    """First and last frame of a span, from its samples."""
    return int(span.waveform[0]), int(span.waveform[-1])


MARGIN = round(MARGIN_S / FRAME_S)
PAUSE = round(PAUSE_S / FRAME_S) + 1


def test_silence_has_no_spans() -> None:
    assert spans_of("." * 200) == []


def test_a_word_is_one_span_with_its_margins() -> None:
    (span,) = spans_of("." * 50 + "#" * 20 + "." * 50)
    assert frames_of(span) == (50 - MARGIN, 69 + MARGIN)
    assert span.start_s == pytest.approx((50 - MARGIN) * FRAME_S)
    assert span.end_s - span.start_s == pytest.approx(len(span.waveform) / 16_000)


def test_a_long_pause_ends_a_span_and_a_short_one_does_not() -> None:
    assert len(spans_of("#" * 20 + "." * (PAUSE + 2) + "#" * 20 + "." * 60)) == 2
    assert len(spans_of("#" * 20 + "." * 10 + "#" * 20 + "." * 60)) == 1


def test_a_short_pause_ends_a_span_that_is_already_long() -> None:
    script = "#" * 200 + "." * 12 + "#" * 50 + "." * 60
    assert len(spans_of(script, longest_s=10.0)) == 2
    assert len(spans_of(script, longest_s=60.0)) == 1


def test_unbroken_speech_is_cut_where_it_is_least_likely_and_loses_nothing() -> None:
    script = "#" * 220 + "+" * 6 + "#" * 400
    spans = spans_of(script, longest_s=10.0)
    assert all(span.end_s - span.start_s <= 10.0 + FRAME_S for span in spans)
    assert 218 <= frames_of(spans[0])[1] <= 228
    joined = torch.cat([span.waveform for span in spans])
    kept = joined.unique()
    assert kept.tolist() == list(range(len(script)))
    assert len(joined) == len(script) * FRAME  # nothing twice either


def test_no_speech_frame_is_lost_or_doubled_between_spans() -> None:
    generator = torch.Generator().manual_seed(3)
    script = "".join(
        ("#" if speech else ".") * int(length)
        for speech, length in zip(
            [True, False] * 20, torch.randint(1, 60, (40,), generator=generator), strict=True
        )
    )
    spans = spans_of(script, longest_s=4.0)
    owned = [frame for span in spans for frame in span.waveform[::FRAME].int().tolist()]
    assert len(owned) == len(set(owned))
    speech = {number for number, kind in enumerate(script) if kind == "#"}
    assert speech <= set(owned)


def test_speech_up_to_the_end_is_kept() -> None:
    (span,) = spans_of("." * 20 + "#" * 30)
    assert frames_of(span)[1] == 49


@pytest.mark.parametrize("chunk", [1, 511, 512, 513, 5000])
def test_the_size_of_chunks_does_not_matter(chunk: int) -> None:
    script = "." * 30 + "#" * 20 + "." * 40 + "#" * 5
    expected = [frames_of(span) for span in spans_of(script)]
    assert [frames_of(span) for span in spans_of(script, chunk=chunk)] == expected


def test_only_a_span_and_a_chunk_are_held() -> None:
    """An hour of silence passes through without being kept."""
    alive = 0

    def chunks() -> Iterator[Tensor]:
        nonlocal alive
        for _ in range(200):
            alive += 1
            yield torch.zeros(16_000)

    assert list(speech_spans(chunks(), lambda frame: 0.0, longest_s=10.0)) == []
    assert alive == 200


def test_the_last_frame_is_what_is_left() -> None:
    frames = list(whole_frames(iter([torch.ones(600)])))
    assert [frame.shape[0] for frame in frames] == [FRAME, 600 - FRAME]


def test_no_span_ends_after_its_recording() -> None:
    samples = torch.ones(20 * FRAME + 17)
    (span,) = speech_spans(iter([samples]), lambda frame: 0.9, longest_s=30.0)
    assert span.end_s == len(samples) / 16_000
    assert torch.equal(span.waveform, samples)


@pytest.mark.parametrize("chunk", [700, 16_000, 10**9])
def test_whole_spans_are_all_of_the_recording_cut_where_it_is_quiet(chunk: int) -> None:
    sound = torch.randn(16_000 * 25)
    for pause_s in (3.1, 7.5, 12.0, 16.2):
        begin = round(16_000 * pause_s)
        sound[begin : begin + 4_000] *= 0.001
    spans = list(whole_spans(iter(sound.split(chunk)), longest_s=5.0))
    assert torch.equal(torch.cat([span.waveform for span in spans]), sound)
    assert all(len(span.waveform) <= 5 * 16_000 for span in spans)
    starts = [span.start_s for span in spans]
    assert starts == pytest.approx([0.0] + [span.end_s for span in spans[:-1]])
    for pause_s in (3.1, 7.5, 12.0, 16.2):
        assert any(pause_s <= start <= pause_s + 0.25 for start in starts)


def test_a_recording_that_fits_is_one_whole_span_silent_or_not() -> None:
    (span,) = whole_spans(iter([torch.zeros(16_000)]), longest_s=5.0)
    assert (span.start_s, span.end_s) == (0.0, 1.0)
    assert list(whole_spans(iter([]), longest_s=5.0)) == []


def test_no_whole_span_is_too_short_to_be_heard() -> None:
    """A recording a sample too long for one span does not leave a last span of one sample."""
    sound = torch.arange(16_000 * 5 + 1).flip(0).float()  # quietest at its end
    spans = list(whole_spans(iter([sound]), longest_s=5.0))
    assert min(len(span.waveform) for span in spans) >= 1024
