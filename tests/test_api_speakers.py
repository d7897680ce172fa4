"""``diarized_json``: who said what, through OpenAI's own client, from a random plus checkpoint.

What its decoder is taken to write is the test's own.
Run alone: ``python -m pytest tests/test_api_speakers.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from openai import BadRequestError, OpenAI

from app.api.asgi import create_api
from app.api.form import TranscriptionForm
from app.api.formats import diarized_answer
from app.service.deployment import Deployment
from app.service.service import TranscriptionService
from app_server import serving
from app_stubs import TRANSCRIPT
from core.generation.greedy import EOS, Hypothesis
from core.text.speaker_turns import unmarked
from core.text.transcript import Segment
from core.transcription import autoregressive
from recordings import written
from tiny_models import noise, random_model, raw_plus_config, write_checkpoint, write_tokenizer

ANSWER = "[Speaker 1]: so you can [Speaker 2]: no <b> [Speaker 1]: yes"
TURNS = [("so you can", "A"), ("no <b>", "B"), ("yes", "A")]
TEXT = "so you can no <b> yes"
WAV = ("talk.wav", written(noise(2.0).numpy(), 16_000, "WAV", "PCM_16"))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[OpenAI, Any]]:
    """A client, and the tokenizer of the model behind it."""
    folder = tmp_path_factory.mktemp("plus")
    raw = raw_plus_config([2], decoder={"max_position_embeddings": 1024})
    write_checkpoint(folder, raw, random_model(raw, seed=1))
    write_tokenizer(folder / "tokenizer.json")
    service = TranscriptionService(model=str(folder), device="cpu")
    with serving(create_api(service, Deployment(model=str(folder)))) as address:
        client = OpenAI(base_url=f"{address}/v1", api_key="any", max_retries=0, timeout=60)
        # The first request is checked by the model itself, which is not loaded before it.
        client.audio.transcriptions.create(file=WAV, model="", response_format="diarized_json")
        (lab,) = service.models.loaded(service.model)
        yield client, lab.tokenizer
    service.close()


@pytest.fixture
def client(served: tuple[OpenAI, Any], monkeypatch: pytest.MonkeyPatch) -> OpenAI:
    """A client of a model that writes ``ANSWER``, a token at a time."""
    client, tokenizer = served
    ids = tokenizer.encode_continuation(ANSWER)

    def decode(*arguments: Any, **_: Any) -> Iterator[list[Hypothesis]]:
        for end in range(1, len(ids) + 1):
            stop = EOS if end == len(ids) else None
            yield [Hypothesis([], ids[:end], [-0.5] * end, stop) for _ in arguments[3]]

    monkeypatch.setattr(autoregressive, "decode_tokens", decode)
    return client


def transcribe(client: OpenAI, **options: Any) -> Any:
    asked = {"file": WAV, "model": "whisper-1", "response_format": "diarized_json", **options}
    return client.audio.transcriptions.create(**asked)


def test_every_turn_has_its_speaker_and_times(client: OpenAI) -> None:
    answer = transcribe(client)
    assert type(answer).__name__ == "TranscriptionDiarized"
    assert (answer.task, answer.text, answer.duration) == ("transcribe", TEXT, 2.0)
    assert [(turn.text, turn.speaker) for turn in answer.segments] == TURNS
    assert [turn.id for turn in answer.segments] == ["seg_0", "seg_1", "seg_2"]
    assert {turn.type for turn in answer.segments} == {"transcript.text.segment"}
    times = [time for turn in answer.segments for time in (turn.start, turn.end)]
    assert times == sorted(times)
    assert 0 <= times[0] < times[-1] <= 2.0
    assert answer.usage.seconds == 2.0


def test_a_stream_has_the_words_without_marks_and_the_turns(client: OpenAI) -> None:
    events = list(transcribe(client, stream=True))
    deltas = [event.delta for event in events if event.type == "transcript.text.delta"]
    assert len(deltas) > 3
    assert "".join(deltas) == TEXT == events[-1].text
    turns = [event for event in events if event.type == "transcript.text.segment"]
    assert [(turn.text, turn.speaker) for turn in turns] == TURNS


def test_what_changes_nothing_for_speakers_is_named(client: OpenAI) -> None:
    raw = client.audio.transcriptions.with_raw_response.create(
        file=WAV,
        model="whisper-1",
        response_format="diarized_json",
        prompt="ohm",
        known_speaker_names=["anna"],
        chunking_strategy="auto",
    )
    assert raw.headers["X-Ignored-Fields"] == "known_speaker_names, prompt"
    with pytest.raises(BadRequestError, match="keywords came with task 'speakers'"):
        transcribe(client, keywords=["ohm"])


def test_without_it_the_model_is_asked_for_text_alone(client: OpenAI) -> None:
    answer = transcribe(client, response_format="json")
    assert answer.text == ANSWER


def test_speakers_are_letters_and_nobody_is_none() -> None:
    speakers = (None, 1, 2, 26, 27, 703)
    segments = tuple(Segment(0.0, 1.0, "so", None, speaker) for speaker in speakers)
    transcript = replace(TRANSCRIPT, segments=segments)
    turns = diarized_answer(transcript, TranscriptionForm())["segments"]
    assert [turn["speaker"] for turn in turns] == ["", "A", "B", "Z", "AA", "AAA"]


@pytest.mark.parametrize(
    ("growing", "certain"),
    [
        ("[Spea", ""),
        ("[Speaker 1]", ""),
        ("[Speaker 1]: so you", "so you"),
        ("uh [Speaker 1]: so [Speaker 2", "uh so"),
        ("a [note] b", "a [note] b"),
    ],
)
def test_a_mark_that_is_half_written_is_not_text(growing: str, certain: str) -> None:
    assert unmarked(growing) == certain
