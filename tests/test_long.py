"""Long recordings end to end: spans in batches, stitched, resumable, stoppable."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from core import long
from core.engine import eager_engine
from core.journal import Journal, read_transcript
from core.lab import Lab
from core.long import LongJob, moved
from core.options import Finished, PartialText, Progress, TranscribeOptions
from core.phases import PhaseClock
from core.segments import speech_spans
from core.transcribe import NO_SPEECH, STOPPED
from core.transcript import Transcript

OPTIONS = TranscribeOptions(max_new_tokens=6, ignore_eos=True, skip_silence=False, batch_size=2)
LOUD, QUIET = 0.1, 1e-6


@pytest.fixture(autouse=True)
def _level_instead_of_the_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise is no speech to the real detector; here loudness is."""

    class Level:
        def probability(self, frame: Tensor) -> float:
            return float(frame.abs().max() > 0.01)

    monkeypatch.setattr(long, "SpeechDetector", Level)


def recording(noise: Callable[..., Tensor], num_words: int) -> Tensor:
    """``num_words`` half-second noises, two seconds of near-silence between."""
    parts = []
    for number in range(num_words):
        parts += [noise(0.5, seed=number), torch.full((32_000,), QUIET)]
    return torch.cat(parts)


def job(lab: Lab, **changes: object) -> LongJob:
    plain = LongJob(
        parts=lab._parts,
        engine=eager_engine(lab.model),
        options=OPTIONS,
        lora=True,
        cancelled=lambda: False,
        clock=PhaseClock(),
        longest_s=5.0,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def run(work: LongJob, source: Tensor) -> tuple[list[object], Transcript]:
    events = list(long.stream_long(work, source))
    assert isinstance(events[-1], Finished)
    return events, events[-1].transcript


def test_the_text_is_that_of_the_spans(lab: Lab, noise: Callable[..., Tensor]) -> None:
    sound = recording(noise, 5)
    _, whole = run(job(lab), sound)
    spans = list(speech_spans(iter([sound]), long.SpeechDetector().probability, longest_s=5.0))
    alone = [
        lab.transcribe(
            span.waveform, lora=True, max_new_tokens=6, ignore_eos=True, skip_silence=False
        )
        for span in spans
    ]
    assert len(whole.segments) == 5
    assert whole.token_ids == tuple(token for one in alone for token in one.token_ids)
    assert [s.text for s in whole.segments] == [s.text for one in alone for s in one.segments]


def test_times_are_those_of_the_recording(lab: Lab, noise: Callable[..., Tensor]) -> None:
    _, whole = run(job(lab), recording(noise, 4))
    for number, segment in enumerate(whole.segments):
        assert segment.start == pytest.approx(number * 2.5, abs=0.3)
    assert whole.audio_s == pytest.approx(10.0)
    timed = [word for word in whole.words if word.start is not None]
    assert [word.start for word in timed] == sorted(word.start for word in timed)


def test_partial_text_grows_and_progress_reaches_the_end(
    lab: Lab, noise: Callable[..., Tensor]
) -> None:
    events, whole = run(job(lab), recording(noise, 5))
    texts = [event.text for event in events if isinstance(event, PartialText)]
    assert len(texts) > 3
    progress = [event for event in events if isinstance(event, Progress)]
    assert [event.total_s for event in progress] == [12.5] * 3
    assert progress[-1].done_s == pytest.approx(10.7, abs=0.3)
    assert whole.text.startswith(texts[0].strip()[:1])


def test_silence_gives_an_empty_transcript_that_says_so(lab: Lab) -> None:
    _, whole = run(job(lab), torch.full((16_000 * 40,), QUIET))
    assert whole.text == ""
    assert whole.segments == ()
    assert whole.warnings == (NO_SPEECH,)


def test_stopping_keeps_what_came(lab: Lab, noise: Callable[..., Tensor]) -> None:
    asked: list[int] = []

    def cancelled() -> bool:
        asked.append(1)
        return len(asked) > 9

    _, whole = run(job(lab, cancelled=cancelled), recording(noise, 6))
    assert 0 < len(whole.segments) < 6
    assert STOPPED in whole.warnings


def test_a_journal_spares_finished_spans(
    lab: Lab, noise: Callable[..., Tensor], tmp_path: Path
) -> None:
    sound, file = recording(noise, 5), tmp_path / "run.jsonl"
    purpose = {"model": "random", "seconds": 12.5}
    halfway: list[int] = []

    def cancelled() -> bool:
        halfway.append(1)
        return len(halfway) > 9

    _, first = run(job(lab, journal=Journal(file, purpose), cancelled=cancelled), sound)
    assert 0 < len(first.segments) < 5
    resumed = Journal(file, purpose)
    runs: list[int] = []
    work = job(lab, journal=resumed)
    encode = work.engine.encode

    def counted(*tensors: Tensor) -> object:
        runs.append(tensors[0].shape[0])
        return encode(*tensors)

    work.engine = replace(work.engine, encode=counted)  # type: ignore[arg-type]
    _, second = run(work, sound)
    _, fresh = run(job(lab), sound)
    assert second.text == fresh.text
    assert second.token_ids == fresh.token_ids
    assert 0 < sum(runs) < 5


def test_a_journal_of_another_run_is_not_used(tmp_path: Path, lab: Lab) -> None:
    file = tmp_path / "run.jsonl"
    _, transcript = run(job(lab), torch.full((16_000,), QUIET))
    Journal(file, {"model": "a"}).add((0.0, 1.0), transcript)
    assert Journal(file, {"model": "a"}).get((0.0, 1.0)) == transcript
    assert Journal(file, {"model": "b"}).get((0.0, 1.0)) is None


def test_a_journal_survives_a_line_cut_short(tmp_path: Path, lab: Lab) -> None:
    file = tmp_path / "run.jsonl"
    _, transcript = run(job(lab), torch.full((16_000,), QUIET))
    journal = Journal(file, {})
    journal.add((0.0, 1.0), transcript)
    journal.add((1.0, 2.0), transcript)
    file.write_text(file.read_text()[:-30])
    again = Journal(file, {})
    assert again.get((0.0, 1.0)) == transcript
    assert again.get((1.0, 2.0)) is None


def test_a_transcript_survives_json(lab: Lab, noise: Callable[..., Tensor]) -> None:
    _, transcript = run(job(lab), recording(noise, 2))
    assert read_transcript(json.loads(json.dumps(transcript.to_dict()))) == transcript
    assert moved(transcript, 0.0) == transcript


def test_a_lab_takes_the_long_way_for_long_recordings_only(
    lab: Lab, noise: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def names(seconds: float) -> Iterator[str]:
        source = torch.cat([noise(1.0), torch.full((round(16_000 * (seconds - 1)),), QUIET)])
        for event in lab.stream(source, max_new_tokens=3, skip_silence=False):
            yield type(event).__name__

    monkeypatch.setattr(lab, "entry", replace(lab.entry, reliable_s=3.0))
    assert "Progress" not in list(names(2.0))
    assert "Progress" in list(names(6.0))
