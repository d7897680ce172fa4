"""The one-call path: a recording in, a transcript out, and what is refused.

The checkpoint is random and its words mean nothing; ``test_bundled_model.py`` has the real one.
Run alone: ``python -m pytest tests/test_transcribe.py``.
"""

import io
import json
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import core
import tiny_models
from core import phases
from core.audio.decode import load_audio
from core.audio.vad import NoSpeech
from core.checkpoint.catalog import CATALOG
from core.lab import Lab
from core.phases import PhaseClock
from core.text.prompts import PromptBuilder
from core.text.transcript import Transcript
from core.transcription.options import Finished, PartialText, PhaseDone, PhaseStarted

SHORT = {"max_new_tokens": 12}


def wav_bytes(waveform: Tensor) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes((waveform.clamp(-1, 1) * 32_767).to(torch.int16).numpy().tobytes())
    return file.getvalue()


def comparable(transcript: Transcript) -> tuple[Any, ...]:
    """What may not depend on the company a clip is in; times and memory may."""
    return transcript.text, transcript.token_ids, transcript.warnings, transcript.audio_s


def test_a_waveform_a_file_bytes_and_an_open_file_are_the_same(
    lab: Lab, noise: Callable[..., Tensor], tmp_path: Path
):
    data = wav_bytes(noise(1.0))
    path = tmp_path / "clip.wav"
    path.write_bytes(data)
    sources = [path, str(path), data, io.BytesIO(data), load_audio(path)]
    found = [lab.transcribe(source, **SHORT) for source in sources]
    assert len({comparable(transcript) for transcript in found}) == 1
    assert [transcript.file for transcript in found] == [str(path), str(path), "", "", ""]


def test_a_transcript_says_how_it_was_made(lab: Lab, noise: Callable[..., Tensor]):
    found = lab.transcribe(noise(1.5), **SHORT)
    assert found.text == lab.tokenizer.decode(found.token_ids).strip()
    assert found.new_tokens == len(found.token_ids) == 12
    assert (found.engine, found.lora, found.decoding) == ("eager", True, "greedy")
    assert found.audio_s == 1.5
    assert found.rtf == pytest.approx(found.end_to_end_ms / 1500)
    assert 0 < found.time_to_first_token_ms < found.end_to_end_ms
    assert " ".join(word.text for word in found.words) == " ".join(found.text.split())
    assert all(0 <= word.confidence <= 1 for word in found.words)
    assert found.segments[0].end == 1.5
    assert json.loads(json.dumps(found.to_dict()))["token_ids"] == list(found.token_ids)


def test_phases_are_known_ones_and_fit_in_the_whole(lab: Lab, noise: Callable[..., Tensor]):
    found = lab.transcribe(noise(1.0), **SHORT)
    names = [phase.name for phase in found.phases]
    assert set(names) <= set(phases.PHASES)
    assert {"features", "encoder", "projector", "prefill", "decode"} <= set(names)
    assert all(phase.ms >= 0 for phase in found.phases)
    assert sum(phase.ms for phase in found.phases) <= found.end_to_end_ms


def test_events_come_in_order(lab: Lab, noise: Callable[..., Tensor]):
    events = list(lab.stream(noise(1.0), **SHORT))
    done = [event.name for event in events if isinstance(event, PhaseDone)]
    assert done == ["decode_audio", "features", "encoder", "projector", "prefill"]
    started = [event.name for event in events if isinstance(event, PhaseStarted)]
    assert started == ["decode_audio", "encoder", "prefill", "decode"]
    partial = [event for event in events if isinstance(event, PartialText)]
    assert partial
    assert [p.num_tokens for p in partial] == sorted({p.num_tokens for p in partial})
    for earlier, later in zip(partial, partial[1:], strict=False):
        assert later.text.startswith(earlier.text)
    assert isinstance(events[-1], Finished)
    assert events[-1].transcript.text.startswith(partial[-1].text.strip())
    assert len([event for event in events if isinstance(event, Finished)]) == 1


@pytest.mark.parametrize("level", [0.0, 1e-5, 5e-4])
def test_silence_and_near_silence_give_no_words_and_a_warning(
    level: float, lab: Lab, noise: Callable[..., Tensor]
):
    found = lab.transcribe(noise(1.0) * 10 * level)
    assert (found.text, found.token_ids, found.words, found.segments) == ("", (), (), ())
    assert found.warnings == (NoSpeech.NO_SPEECH.value,)
    assert found.time_to_first_token_ms is None
    assert found.new_tokens_per_s is None
    assert [phase.name for phase in found.phases] == ["decode_audio"]


def test_silence_is_transcribed_where_that_is_asked_for(lab: Lab):
    assert lab.transcribe(torch.zeros(16_000), skip_silence=False, **SHORT).token_ids


@pytest.fixture(scope="module")
def deaf(tmp_path_factory: pytest.TempPathFactory, speech_folder: Path) -> Lab:
    """A checkpoint whose CTC head hears nothing but blanks."""
    folder = tmp_path_factory.mktemp("deaf")
    raw = tiny_models.raw_config(has_lora_adapter=False)
    model = tiny_models.random_model(raw, seed=1)
    with torch.no_grad():
        model.encoder.out.bias[0] = 1000
    tiny_models.write_checkpoint(folder, raw, model)
    (folder / "tokenizer.json").write_bytes((speech_folder / "tokenizer.json").read_bytes())
    (folder / "lab.json").write_text('{"family": "tiny"}')
    return core.load(folder, device="cpu", dtype="float32")


def test_a_loud_recording_without_speech_is_stopped_by_the_ctc_head(
    deaf: Lab, noise: Callable[..., Tensor]
):
    found = deaf.transcribe(noise(1.0))
    assert (found.text, found.warnings) == ("", (NoSpeech.NO_SPEECH.value,))
    assert [phase.name for phase in found.phases] == ["decode_audio", "features", "encoder"]
    assert deaf.transcribe(noise(1.0), skip_silence=False, **SHORT).token_ids


@pytest.mark.parametrize(
    "source", [torch.zeros(0), torch.full((16_000,), torch.nan), torch.zeros(2, 2, 16_000)]
)
def test_waveforms_that_are_no_sound_are_refused(source: Tensor, lab: Lab):
    with pytest.raises(core.AudioError, match="expected"):
        lab.transcribe(source)


def test_int16_stereo_waveforms_are_scaled_and_mixed(lab: Lab, noise: Callable[..., Tensor]):
    mono = (noise(1.0) * 32_768).to(torch.int16)
    stereo = torch.stack([mono, mono])
    assert comparable(lab.transcribe(stereo, **SHORT)) == comparable(lab.transcribe(mono, **SHORT))


def test_a_recording_too_short_to_hear_is_refused_with_its_length(
    lab: Lab, noise: Callable[..., Tensor]
):
    with pytest.raises(ValueError, match="200 samples; at least 257"):
        lab.transcribe(noise(0.0125))


def test_no_recordings_are_an_error(lab: Lab):
    with pytest.raises(ValueError, match="at least one"):
        lab.transcribe_batch([])


def test_more_tokens_than_the_context_holds_are_refused(lab: Lab, noise: Callable[..., Tensor]):
    with pytest.raises(ValueError, match="model's context of 512"):
        lab.transcribe(noise(1.0), max_new_tokens=500)


def test_text_cut_at_its_limit_says_so(lab: Lab, noise: Callable[..., Tensor]):
    found = lab.transcribe(noise(1.0), max_new_tokens=3)
    assert found.warnings == ("the text was cut at 3 tokens; allow more to see the rest",)
    measured = lab.transcribe(noise(1.0), max_new_tokens=3, ignore_eos=True)
    assert measured.warnings == ()
    assert measured.new_tokens == 3


def test_lora_changes_the_transcript_and_only_where_it_is_on(
    lab: Lab, noise: Callable[..., Tensor]
):
    on, off = (lab.transcribe(noise(1.0), lora=state, **SHORT) for state in (True, False))
    assert on.token_ids != off.token_ids
    assert (on.lora, off.lora) == (True, False)
    assert lab.transcribe(noise(1.0), **SHORT).token_ids == on.token_ids


def test_chat_is_the_base_model(lab: Lab, speech_folder: Path, tmp_path: Path):
    for file in speech_folder.iterdir():
        if not file.name.startswith("adapter"):
            (tmp_path / file.name).write_bytes(file.read_bytes())
    base = core.load(tmp_path, device="cpu", dtype="float32")
    answer = lab.chat("what is a conformer?", max_new_tokens=16)
    assert answer == base.chat("what is a conformer?", max_new_tokens=16) != ""
    turns = [{"role": "user", "content": "what is a conformer?"}]
    assert "".join(lab.stream_chat(turns, max_new_tokens=16)) == answer


def test_models_without_a_text_mode_say_so(deaf: Lab, noise: Callable[..., Tensor]):
    four = core.load(deaf.files.folder, device="cpu", dtype="float32")
    four.model_info = CATALOG["granite-4.0-1b-speech"]
    with pytest.raises(ValueError, match="Granite 4.0 1B Speech has no text mode"):
        four.chat("hello")


def test_a_checkpoint_without_a_tokenizer_still_makes_ids(
    speech_folder: Path, tmp_path: Path, noise: Callable[..., Tensor]
):
    for file in speech_folder.iterdir():
        if file.name != "tokenizer.json":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    lab = core.load(tmp_path, device="cpu", dtype="float32")
    assert lab.generate_ids([[1, *[tiny_models.AUDIO_ID] * 12, 2]], [noise(1.0)])[0].ids
    with pytest.raises(ValueError, match="has no tokenizer.json"):
        lab.transcribe(noise(1.0))


@pytest.mark.parametrize("decoding", ["greedy", "speculative", "beam"])
def test_writing_the_prompt_is_part_of_the_one_prefill(
    lab: Lab, noise: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch, decoding: str
):
    clock, during = PhaseClock(), []
    write = PromptBuilder.speech

    def speech(self: PromptBuilder, *arguments: Any) -> list[int]:
        during.append(clock._open)
        return write(self, *arguments)

    monkeypatch.setattr(PromptBuilder, "speech", speech)
    options = {"max_new_tokens": 4, "skip_silence": False, "decoding": decoding}
    *_, last = lab.stream(noise(1.0), clock=clock, **options)
    assert isinstance(last, Finished)
    assert [name for name in during if name is not None] == ["prefill"]
    assert sum(span.name == "prefill" for span in clock.spans) == 1
