"""Long recordings end to end: spans in batches, stitched, resumable, stoppable."""

import errno
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from core.__main__ import main
from core.audio.segmentation import speech_spans
from core.audio.vad import NoSpeech
from core.lab import Lab
from core.phases import PhaseClock
from core.text.transcript import Transcript
from core.transcription import long_form
from core.transcription.long_form import LongJob, shifted
from core.transcription.options import Finished, PartialText, Progress, TranscribeOptions
from core.transcription.resume import Journal, read_transcript
from recordings import pcm_wav

OPTIONS = TranscribeOptions(max_new_tokens=6, ignore_eos=True, batch_size=2)
LOUD, QUIET = 0.1, 1e-6


@pytest.fixture(autouse=True)
def _level_instead_of_the_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise is no speech to the real detector; here loudness is."""

    class Level:
        def probability(self, frame: Tensor) -> float:
            return float(frame.abs().max() > 0.01)

    monkeypatch.setattr(long_form, "SpeechDetector", Level)


def recording(noise: Callable[..., Tensor], num_words: int) -> Tensor:
    """``num_words`` half-second noises, two seconds of near-silence between."""
    components = []
    for number in range(num_words):
        components += [noise(0.5, seed=number), torch.full((32_000,), QUIET)]
    return torch.cat(components)


def job(lab: Lab, **changes: object) -> LongJob:
    plain = LongJob(lab.session.request(OPTIONS), lambda: False, PhaseClock(), longest_s=5.0)
    return replace(plain, **changes)  # type: ignore[arg-type]


def run(work: LongJob, source: Tensor) -> tuple[list[object], Transcript]:
    events = list(long_form.stream_long(work, source))
    assert isinstance(events[-1], Finished)
    return events, events[-1].transcript


def test_the_text_is_that_of_the_spans(lab: Lab, noise: Callable[..., Tensor]) -> None:
    sound = recording(noise, 5)
    _, whole = run(job(lab), sound)
    spans = list(speech_spans(iter([sound]), long_form.SpeechDetector().probability, longest_s=5.0))
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
    assert whole.warnings == (NoSpeech.NO_SPEECH.value,)


def test_stopping_keeps_what_came(lab: Lab, noise: Callable[..., Tensor]) -> None:
    asked: list[int] = []

    def cancelled() -> bool:
        asked.append(1)
        return len(asked) > 15

    _, whole = run(job(lab, cancelled=cancelled), recording(noise, 6))
    assert 0 < len(whole.segments) < 6
    assert whole.stopped
    assert whole.warnings == ()
    assert whole.audio_s == 15.0
    heard_s = whole.end_to_end_ms / 1000 / whole.rtf
    assert 0 < heard_s < 15.0  # of the batches that were finished


def test_a_journal_spares_finished_spans(
    lab: Lab, noise: Callable[..., Tensor], tmp_path: Path
) -> None:
    sound, file = recording(noise, 5), tmp_path / "run.jsonl"
    purpose = {"model": "random", "seconds": 12.5}
    halfway: list[int] = []

    def cancelled() -> bool:
        halfway.append(1)
        return len(halfway) > 15

    _, first = run(job(lab, journal=Journal(file, purpose), cancelled=cancelled), sound)
    assert 0 < len(first.segments) < 5
    resumed = Journal(file, purpose)
    runs: list[int] = []
    work = job(lab, journal=resumed)
    encode = work.request.engine.encode

    def counted(*tensors: Tensor) -> object:
        runs.append(tensors[0].shape[0])
        return encode(*tensors)

    counting = replace(work.request.engine, encode=counted)  # type: ignore[type-var]
    work.request = replace(work.request, engine=counting)
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


def test_a_full_disk_ends_the_journal_and_not_the_run(
    tmp_path: Path, lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _, transcript = run(job(lab), torch.full((16_000,), QUIET))
    journal = Journal(tmp_path / "run.jsonl", {})

    def full(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    journal.add((0.0, 1.0), transcript)
    journal.add((1.0, 2.0), transcript)
    assert journal.get((1.0, 2.0)) == transcript
    assert caplog.text.count("No space left on device") == 1


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
    assert shifted(transcript, 0.0) == transcript


def test_where_silence_is_to_be_heard_nothing_is_dropped(
    lab: Lab, noise: Callable[..., Tensor]
) -> None:
    sound = torch.cat([noise(3.0), torch.full((16_000 * 9,), QUIET), noise(2.0, seed=1)])
    heard: list[float] = []
    work = job(lab, request=lab.session.request(replace(OPTIONS, skip_silence=False)))
    encode = work.request.engine.encode

    def counted(*tensors: Tensor) -> object:
        heard.extend(tensors[1].tolist())
        return encode(*tensors)

    counting = replace(work.request.engine, encode=counted)  # type: ignore[type-var]
    work.request = replace(work.request, engine=counting)
    _, whole = run(work, sound)
    assert sum(heard) == pytest.approx(14 * 50, abs=len(heard))  # 50 frames a second
    ends = [(segment.start, segment.end) for segment in whole.segments]
    assert ends[0][0] == 0.0
    assert ends[-1][1] == pytest.approx(14.0)
    assert all(a[1] == pytest.approx(b[0]) for a, b in zip(ends, ends[1:], strict=False))


def test_a_clip_too_long_for_one_pass_is_cut_though_it_is_trusted_longer(
    lab: Lab, noise: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lab.max_audio_s < 20 < lab.model_info.reliable_s
    found = lab.transcribe(noise(20.0), max_new_tokens=3, ignore_eos=True, skip_silence=False)
    assert len(found.segments) >= 2
    assert found.segments[-1].end == pytest.approx(20.0)


def test_a_file_that_is_longer_than_its_header_says_is_cut_at_pauses(
    lab: Lab, noise: Callable[..., Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = wav(tmp_path / "a.wav", noise(40.0))
    monkeypatch.setattr("core.lab.seconds_of", lambda source: 1.0)
    found = lab.transcribe(file, max_new_tokens=2, ignore_eos=True, skip_silence=False)
    assert found.audio_s == pytest.approx(40.0)
    assert len(found.segments) >= 2


def wav(file: Path, sound: Tensor) -> Path:
    file.write_bytes(pcm_wav((sound.clamp(-1, 1) * 32_000).short().numpy()))
    return file


def test_a_stopped_file_is_resumed_from_its_folder_which_is_empty_when_it_is_done(
    lab: Lab, noise: Callable[..., Tensor], tmp_path: Path
) -> None:
    file, folder = wav(tmp_path / "talk.wav", recording(noise, 20)), tmp_path / "kept"
    options = {"max_new_tokens": 3, "ignore_eos": True, "batch_size": 2}
    asked: list[int] = []

    def cancelled() -> bool:
        asked.append(1)
        return len(asked) > 14

    *_, stopped = lab.stream(file, resume=folder, cancelled=cancelled, **options)
    (journal,) = folder.glob("talk-*.jsonl")
    finished = len(journal.read_text().splitlines()) - 1
    assert 0 < finished < 20
    *_, other = lab.stream(file, resume=folder, **{**options, "max_new_tokens": 2})
    assert journal.exists()  # another request has a journal of its own
    *_, resumed = lab.stream(file, resume=folder, **options)
    assert isinstance(stopped, Finished)
    assert isinstance(resumed, Finished)
    assert stopped.transcript.stopped
    assert len(resumed.transcript.segments) == 20
    assert resumed.transcript.text == lab.transcribe(file, **options).text
    assert list(folder.iterdir()) == []


def test_the_command_line_resumes(
    speech_folder: Path, noise: Callable[..., Tensor], tmp_path: Path, capsys: Any
) -> None:
    file, folder = wav(tmp_path / "talk.wav", recording(noise, 14)), tmp_path / "kept"
    command = ["transcribe", str(file), "--model", str(speech_folder), "--max-new-tokens", "2"]
    assert main([*command, "--resume", str(folder)]) == 0
    out = capsys.readouterr().out
    assert main(command) == 0
    assert capsys.readouterr().out == out
    assert list(folder.iterdir()) == []
    assert main([*command, "--resume", str(file)]) == 2
    error = capsys.readouterr().err
    assert "cannot be kept there" in error
    assert error.count("\n") == 1


def test_a_lab_takes_the_long_way_for_long_recordings_only(
    lab: Lab, noise: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def names(seconds: float) -> Iterator[str]:
        source = torch.cat([noise(1.0), torch.full((round(16_000 * (seconds - 1)),), QUIET)])
        for event in lab.stream(source, max_new_tokens=3, skip_silence=False):
            yield type(event).__name__

    monkeypatch.setattr(lab.session.recognizer, "max_audio_s", 3.0)
    assert "Progress" not in list(names(2.0))
    assert "Progress" in list(names(6.0))
