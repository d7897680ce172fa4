"""The one-call path: recordings in, transcripts out, as events, in batches, from several threads.

Most tests use a random checkpoint, whose words mean nothing; the last ones use the bundled model.
Run alone: ``python -m pytest tests/test_transcribe.py``.
"""

import io
import json
import wave
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GraniteSpeechFeatureExtractor, GraniteSpeechForConditionalGeneration

import core
import tiny_models
from core import phases
from core.audio import load_audio
from core.catalog import CATALOG
from core.lab import Lab
from core.options import Finished, PartialText, PhaseDone, PhaseStarted, TranscribeOptions
from core.phases import PhaseClock
from core.prompts import PromptBuilder, Request
from core.transcribe import NO_SPEECH, STOPPED
from core.transcript import Transcript

SHORT = {"max_new_tokens": 12}
BUNDLED = Path(CATALOG["tiny"].source)
EXAMPLES = BUNDLED.parent / "examples"
needs_bundled_model = pytest.mark.skipif(
    not (BUNDLED / "config.json").is_file(),
    reason="assets/tiny is not there: make it with `make demo-model`",
)


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
    assert found.warnings == (NO_SPEECH,)
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
    assert (found.text, found.warnings) == ("", (NO_SPEECH,))
    assert [phase.name for phase in found.phases] == ["decode_audio", "features", "encoder"]
    assert deaf.transcribe(noise(1.0), skip_silence=False, **SHORT).token_ids


def test_a_misspelt_option_is_a_type_error(lab: Lab, noise: Callable[..., Tensor]):
    for call in (lab.transcribe, lab.stream):
        with pytest.raises(TypeError, match="max_tokens"):
            call(noise(1.0), max_tokens=5)
    with pytest.raises(TypeError):
        lab.chat("hello", loraa=True)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"task": "sing"}, "task is 'sing'; expected one of transcribe, translate, instruct"),
        ({"engine": "warp"}, "engine is 'warp'; expected one of eager, compile"),
        ({"decoding": "magic"}, "decoding is 'magic'"),
        ({"keywords": "ohm"}, "expected a list of words"),
        ({"num_beams": 3}, "expected 'beam'"),
        ({"temperature": 0.5}, "expected 'sample'"),
        ({"max_new_tokens": 0}, "expected at least 1"),
        ({"top_p": 2.0}, "above 0, at most 1"),
        ({"language": "xx"}, "got 'xx'"),
        ({"task": "instruct"}, "without an instruction"),
        ({"task": "instruct", "instruction": "a <|audio|> b"}, "reserves"),
        ({"task": "translate"}, "needs a target language"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_wrong_options_are_refused_before_the_recording_is_opened(
    options: dict[str, Any], told: str, lab: Lab
):
    with pytest.raises(ValueError, match=told):
        lab.transcribe("no-such-file.wav", **options)


def test_options_become_what_generation_understands():
    beam = TranscribeOptions(decoding="beam").generation()
    assert (beam.num_beams, beam.temperature) == (4, 0)
    sample = TranscribeOptions(decoding="sample", top_p=0.5, seed=3).generation()
    assert (sample.num_beams, sample.temperature, sample.top_p, sample.seed) == (1, 0.7, 0.5, 3)
    request = TranscribeOptions(keywords=[" ohm ", "", "volt"]).request()
    assert request.keywords == ("ohm", "volt")


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


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lora": False},
        {"decoding": "beam", "num_beams": 3},
        {"decoding": "sample", "seed": 4},
        {"decoding": "speculative"},
        {"task": "translate", "target_language": "de"},
        {"no_repeat_ngram_size": 2, "repetition_penalty": 1.2},
    ],
    ids=str,
)
def test_a_batch_gives_each_clip_what_it_gets_alone(
    options: dict[str, Any], lab: Lab, noise: Callable[..., Tensor]
):
    sources = [noise(seconds, seed=n) for n, seconds in enumerate((0.3, 1.1, 0.02, 1.7))]
    sources.insert(2, torch.zeros(8_000))
    together = lab.transcribe_batch(sources, **options, **SHORT)
    assert together[2].warnings == (NO_SPEECH,)
    for source, transcript in zip(sources, together, strict=True):
        assert comparable(transcript) == comparable(lab.transcribe(source, **options, **SHORT))


def test_speculative_decoding_writes_the_greedy_tokens(lab: Lab, noise: Callable[..., Tensor]):
    for seed in range(3):
        greedy = lab.transcribe(noise(1.2, seed), **SHORT)
        drafted = lab.transcribe(noise(1.2, seed), decoding="speculative", **SHORT)
        assert drafted.token_ids == greedy.token_ids
        assert drafted.draft is not None


def test_cancelling_keeps_the_text_so_far(lab: Lab, noise: Callable[..., Tensor]):
    seen = []

    def cancelled() -> bool:
        return len(seen) >= 4

    for event in lab.stream(noise(1.0), cancelled=cancelled, max_new_tokens=100):
        if isinstance(event, PartialText):
            seen.append(event.text)
    assert isinstance(event, Finished)
    assert STOPPED in event.transcript.warnings
    assert 0 < event.transcript.new_tokens < 100
    assert event.transcript.text.startswith(seen[-1].strip())


def test_a_stream_that_is_left_early_leaves_the_lab_usable(lab: Lab, noise: Callable[..., Tensor]):
    stream = lab.stream(noise(1.0), max_new_tokens=100)
    next(stream)
    stream.close()
    assert not torch.is_inference_mode_enabled()
    assert lab.transcribe(noise(1.0), **SHORT).token_ids


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
    four.entry = CATALOG["granite-4.0-1b-speech"]
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


def test_callers_in_two_threads_get_what_they_get_alone(lab: Lab, noise: Callable[..., Tensor]):
    requests = [
        (noise(0.8, 1), {"lora": True}),
        (noise(1.4, 2), {"lora": False}),
        (noise(0.5, 3), {"decoding": "beam", "num_beams": 2}),
        (noise(1.0, 4), {"decoding": "sample", "seed": 9}),
    ]
    alone = [comparable(lab.transcribe(clip, **options, **SHORT)) for clip, options in requests]
    barrier = Barrier(2)

    def work(order: list[int]) -> list[tuple[int, tuple[Any, ...]]]:
        barrier.wait()
        return [
            (n, comparable(lab.transcribe(requests[n][0], **requests[n][1], **SHORT)))
            for n in order
        ]

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(work, order) for order in ([0, 1, 2, 3], [1, 0, 3, 2])]
        for future in futures:
            for number, found in future.result():
                assert found == alone[number]


def test_two_streams_taken_in_turn_do_not_mix(lab: Lab, noise: Callable[..., Tensor]):
    clips = [noise(0.8, 1), noise(1.4, 2)]
    alone = [comparable(lab.transcribe(clip, **SHORT)) for clip in clips]
    streams = [lab.stream(clip, **SHORT) for clip in clips]
    last: list[Any] = [None, None]
    for events in zip(*streams, strict=False):
        last = list(events)
    for number, stream in enumerate(streams):
        for last[number] in stream:
            pass
    assert [comparable(event.transcript) for event in last] == alone


def errors_between(said: str, heard: str) -> int:
    """Word errors by dynamic programming (Levenshtein distance)."""
    reference, found = said.split(), heard.split()
    row = list(range(len(found) + 1))
    for i, word in enumerate(reference, start=1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(found, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other))
    return row[-1]


@pytest.fixture(scope="module")
def tiny() -> Lab:
    return core.load("tiny", device="cpu", dtype="float32")


def examples() -> dict[str, str]:
    file = EXAMPLES / "transcripts.json"
    return json.loads(file.read_text()) if file.is_file() else {}


@needs_bundled_model
def test_the_bundled_model_is_far_worse_without_its_adapter(tiny: Lab):
    said = list(examples().values())
    files = [EXAMPLES / name for name in examples()]
    errors = {
        state: sum(
            errors_between(text, found.text.lower())
            for text, found in zip(said, tiny.transcribe_batch(files, lora=state), strict=True)
        )
        for state in (True, False)
    }
    num_words = sum(len(text.split()) for text in said)
    assert errors[True] <= 0.05 * num_words  # real recordings it never saw
    assert errors[False] > num_words / 2


@needs_bundled_model
def test_the_bundled_model_hears_nothing_in_silence_and_hiss(
    tiny: Lab, noise: Callable[..., Tensor]
):
    for waveform in (torch.zeros(32_000), noise(2.0) * 0.005):
        assert tiny.transcribe(waveform).text == ""


@needs_bundled_model
def test_the_bundled_model_loads_unchanged_through_transformers(tiny: Lab):
    reference = GraniteSpeechForConditionalGeneration.from_pretrained(
        BUNDLED, dtype=torch.float32
    ).eval()
    extractor = GraniteSpeechFeatureExtractor.from_pretrained(BUNDLED)
    request = Request("transcribe", None, None, (), None)
    for name in list(examples())[:3]:
        waveform = load_audio(EXAMPLES / name)
        heard = extractor(waveform)
        ids = tiny._parts.prompts.speech(request, int(heard["audio_embed_sizes"][0]))
        out = reference.generate(
            input_ids=torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            input_features=heard["input_features"],
            input_features_mask=heard["input_features_mask"],
            max_new_tokens=60,
            num_beams=1,
            do_sample=False,
        )
        ends = set(tiny.config.decoder.eos_token_ids)
        expected = [token for token in out[0, len(ids) :].tolist() if token not in ends]
        assert list(tiny.transcribe(waveform, max_new_tokens=60).token_ids) == expected


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
