"""Text while somebody speaks: what is certain, what is not, and that nothing is lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from core.audio.microphone import Microphone
from core.audio.vad import FRAME
from core.audio.waveform import SAMPLE_RATE, AudioError
from core.lab import Lab
from core.text.transcript import Transcript, Word
from core.transcription.stable_words import Agreement
from core.transcription.streaming import LONGEST_S, MAX_LIVE_S, STEP_S, Live
from test_export import EMPTY

RATE = 48_000
BLOCK_S = 0.1


def words(*texts: str, each_s: float = 0.5, begin_s: float = 0.0) -> list[Word]:
    """Words of equal length, one after another."""
    starts = [begin_s + each_s * number for number in range(len(texts))]
    return [Word(t, s, s + 0.8 * each_s, 0.9) for t, s in zip(texts, starts, strict=True)]


def texts(found: Sequence[Word]) -> list[str]:
    return [word.text for word in found]


class TestAgreement:
    def test_a_word_is_certain_when_two_passes_agree(self) -> None:
        speech = Agreement()
        speech.update(words("one", "two"), 2.0)
        assert (texts(speech.committed), texts(speech.tentative)) == ([], ["one", "two"])
        speech.update(words("one", "too", "three"), 2.5)
        assert (texts(speech.committed), texts(speech.tentative)) == (["one"], ["too", "three"])

    def test_what_is_certain_never_changes(self) -> None:
        speech = Agreement()
        for heard in (("one", "two"), ("one", "two"), ("nine", "two", "six")):
            speech.update(words(*heard), 9.0)
        assert texts(speech.committed)[:2] == ["one", "two"]
        speech.close(words("nine", "two", "six"))
        assert texts(speech.committed) == ["one", "two", "six"]
        assert speech.tentative == []

    def test_a_word_at_the_end_of_the_sound_waits(self) -> None:
        speech = Agreement()
        for _ in range(2):
            speech.update(words("one", "six"), 1.0)  # "six" ends at 0.9 s: it may become "sixteen"
        assert texts(speech.committed) == ["one"]

    def test_equal_words_are_told_apart_by_time(self) -> None:
        speech = Agreement()
        for _ in range(2):
            speech.update(words("one", "one"), 9.0)
        speech.close(words("one", "one", "one"))
        assert texts(speech.committed) == ["one", "one", "one"]

    def test_without_times_words_are_counted(self) -> None:
        speech, heard = Agreement(), [Word(t, None, None, None) for t in ("un", "deux")]
        for _ in range(2):
            speech.update(heard, 1.0)
        speech.close([*heard, Word("trois", None, None, None)])
        assert texts(speech.committed) == ["un", "deux", "trois"]


def loudness(frame: Tensor) -> float:
    """Stands in for the speech detector: sound is speech."""
    return 1.0 if float(frame.abs().max()) > 0.01 else 0.0


def sound(*parts: tuple[float, float]) -> np.ndarray:
    """(seconds, level) one after another, at RATE."""
    rng = np.random.default_rng(0)
    made = [level * rng.uniform(-1, 1, round(seconds * RATE)) for seconds, level in parts]
    return np.concatenate(made).astype(np.float32)


def blocks(samples: np.ndarray) -> list[np.ndarray]:
    return np.split(samples, range(round(BLOCK_S * RATE), len(samples), round(BLOCK_S * RATE)))


def clockwork(waveform: Tensor) -> Transcript:
    """Stands in for a model: a word for each half second, named by its number."""
    count = int(waveform.shape[0] / SAMPLE_RATE / 0.5)
    found = tuple(words(*(f"w{number}" for number in range(count))))
    return replace(EMPTY, words=found, text=" ".join(texts(found)))


def live_of(longest_s: float = LONGEST_S) -> Live:
    return Live(reliable_s=10.0, microphone=Microphone(longest_s=longest_s, probability=loudness))


class TestMicrophone:
    def test_every_sample_is_kept_whatever_the_blocks(self) -> None:
        samples = sound((1.23, 0.5))
        microphone = Microphone(longest_s=9.0, probability=loudness)
        for block in blocks(samples):
            microphone.push(block, RATE)
        microphone.finish()
        assert microphone.heard_s == pytest.approx(1.23, abs=0.002)
        assert microphone.recording().shape == (microphone.num_samples,)

    def test_spans_are_those_of_the_whole_sound(self) -> None:
        samples = sound((0.5, 0.0), (1.0, 0.5), (1.2, 0.0), (0.7, 0.5), (1.0, 0.0))
        microphone = Microphone(longest_s=9.0, probability=loudness)
        spans = [span for block in blocks(samples) for span in microphone.push(block, RATE)]
        spans += microphone.finish()
        assert [round(span.start_s, 1) for span in spans] == [0.3, 2.5]
        assert [round(span.end_s, 1) for span in spans] == [1.7, 3.6]

    def test_integers_in_two_channels_are_one_stream(self) -> None:
        microphone = Microphone(longest_s=9.0, probability=loudness)
        microphone.push(np.full((1600, 2), 2**14, np.int16), SAMPLE_RATE)
        assert microphone.recording().tolist() == [16383] * 1600

    def test_a_rate_no_microphone_has_is_refused(self) -> None:
        with pytest.raises(AudioError, match="3 samples a second"):
            Microphone(longest_s=9.0, probability=loudness).push(np.zeros(9, np.float32), 3)


class TestLive:
    def test_words_appear_while_speech_goes_on_and_are_told_apart(self) -> None:
        live = live_of()
        for block in blocks(sound((3.0, 0.5))):
            if live.push(block, RATE):
                live.step(clockwork)
        state = live.state()
        assert texts(state.committed)
        assert texts(state.committed)[0] == "w0"
        assert texts(state.tentative)
        assert not state.done

    def test_the_end_settles_everything(self) -> None:
        live = live_of()
        for block in blocks(sound((2.1, 0.5), (1.0, 0.0), (1.1, 0.5))):
            if live.push(block, RATE):
                live.step(clockwork)
        live.end()
        while live.is_due():
            live.step(clockwork)
        state = live.state()
        assert state.done
        assert state.tentative == ()
        assert state.behind_s == 0
        made = live.transcript()
        assert made is not None
        assert [segment.text for segment in made.segments] == ["w0 w1 w2 w3", "w0 w1"]
        assert made.text == "w0 w1 w2 w3 w0 w1"
        assert made.words[4].start == pytest.approx(2.9, abs=0.05)  # times are the recording's

    def test_a_model_that_is_slow_falls_behind_says_so_and_loses_nothing(self) -> None:
        spoken = sound(*[(0.9, 0.5), (1.0, 0.0)] * 4)
        live = live_of()
        for block in blocks(spoken):
            live.push(block, RATE)  # no step: the model is busy elsewhere
        assert live.state().behind_s == pytest.approx(7.6, abs=0.01)
        live.step(clockwork)
        assert live.state().behind_s > 5
        live.end()
        while live.is_due():
            live.step(clockwork)
        made = live.transcript()
        assert made is not None
        assert made.text == " ".join(["w0 w1"] * 4)
        assert live.state().worst_s == pytest.approx(7.6, abs=0.01)
        assert len(live.recording()) == pytest.approx(7.6 * SAMPLE_RATE, abs=50)

    def test_long_speech_is_cut_before_passes_grow_long(self) -> None:
        longest: list[float] = []

        def transcribe(waveform: Tensor) -> Transcript:
            longest.append(waveform.shape[0] / SAMPLE_RATE)
            return clockwork(waveform)

        live = live_of(longest_s=2.0)
        for block in blocks(sound((9.0, 0.5))):
            if live.push(block, RATE):
                live.step(transcribe)
        assert max(longest) <= 2.0 + FRAME / SAMPLE_RATE

    def test_silence_is_never_transcribed(self) -> None:
        live = live_of()
        for block in blocks(sound((2.0, 0.0))):
            if live.push(block, RATE):
                live.step(lambda _: pytest.fail("silence was transcribed"))
        live.end()
        while live.is_due():
            live.step(lambda _: pytest.fail("silence was transcribed"))
        assert live.state().done
        assert live.transcript() is None

    def test_it_waits_for_new_sound(self) -> None:
        live = live_of()
        due = [live.push(block, RATE) for block in blocks(sound((2 * STEP_S, 0.5)))]
        assert due.index(True) == round(STEP_S / BLOCK_S) - 1
        live.step(clockwork)
        assert not live.is_due()

    def test_it_ends_after_its_longest_time_and_after_its_end(self) -> None:
        live = live_of()
        block = np.zeros(round(MAX_LIVE_S / 2) * SAMPLE_RATE, np.int8).astype(np.int16)
        live.push(block, SAMPLE_RATE)
        live.push(block, SAMPLE_RATE)
        with pytest.raises(ValueError, match="ends after 10 minutes"):
            live.push(block, SAMPLE_RATE)
        ended = live_of()
        ended.end()
        with pytest.raises(ValueError, match="start a new one"):
            ended.push(block, SAMPLE_RATE)

    def test_a_real_model_and_the_real_detector_run_it(self, lab: Lab) -> None:
        live = Live(reliable_s=lab.model_info.reliable_s)
        noise = torch.randn(SAMPLE_RATE).numpy() * 0.1
        for block in np.split(noise.astype(np.float32), 10):
            live.push(block, SAMPLE_RATE)
        live.end()
        while live.is_due():
            live.step(lambda waveform: lab.transcribe(waveform, max_new_tokens=3))
        assert live.state().done
