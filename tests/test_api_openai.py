"""OpenAI's routes with its own client: on the server alone, inside the page's, on Ray Serve.

Run alone: ``python -m pytest tests/test_api_openai.py``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import openai
import pytest
import soundfile
from openai import OpenAI

from app_server import TINY, running_api, running_app, running_serve
from bundled import EXAMPLES

pytestmark = pytest.mark.skipif(
    not (TINY / "config.json").is_file(), reason="assets/tiny is not there: make demo-model"
)
CLIP = EXAMPLES / "string_three_one_eight.flac"
TEXT, SECONDS = "three one eight", 2.825
ON_RAY = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason="needs requirements-cluster.txt"),
]
MOUNTS = [
    pytest.param(running_api, id="alone"),
    pytest.param(running_app, id="in the page"),
    pytest.param(running_serve, id="on Ray Serve", marks=ON_RAY),
]


@pytest.fixture(scope="module", params=MOUNTS)
def client(request: pytest.FixtureRequest) -> Iterator[OpenAI]:
    with request.param("tiny") as address:
        yield OpenAI(base_url=f"{address}/v1", api_key="any", max_retries=0, timeout=120)


def transcribe(client: OpenAI, **options: Any) -> Any:
    return client.audio.transcriptions.create(**{"file": CLIP, "model": "tiny", **options})


def test_json_is_the_default(client: OpenAI) -> None:
    answer = transcribe(client)
    assert answer.text == TEXT
    assert answer.usage.type == "duration"
    assert answer.usage.seconds == pytest.approx(SECONDS, abs=0.01)
    assert answer.logprobs is None


@pytest.mark.parametrize("name", ["whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe"])
def test_an_alias_is_the_start_model(client: OpenAI, name: str) -> None:
    assert transcribe(client, model=name).text == TEXT


def test_files_of_text(client: OpenAI) -> None:
    assert transcribe(client, response_format="text") == f"{TEXT}\n"
    srt = transcribe(client, response_format="srt")
    assert srt == f"1\n00:00:00,000 --> 00:00:02,825\n{TEXT}\n"
    vtt = transcribe(client, response_format="vtt")
    assert vtt == f"WEBVTT\n\n00:00:00.000 --> 00:00:02.825\n{TEXT}\n"


def test_verbose_json_has_every_field_of_a_segment(client: OpenAI) -> None:
    answer = transcribe(client, response_format="verbose_json", language="en")
    assert (answer.text, answer.language) == (TEXT, "en")
    assert isinstance(answer.duration, float)
    assert answer.words is None
    (segment,) = answer.segments
    assert set(segment.to_dict()) == {
        *("id", "seek", "start", "end", "text", "tokens", "temperature", "avg_logprob"),
        *("compression_ratio", "no_speech_prob"),
    }
    assert (segment.text, segment.start) == (TEXT, 0.0)
    assert segment.end == pytest.approx(SECONDS, abs=0.01)
    assert len(segment.tokens) >= 3
    assert -1 < segment.avg_logprob < 0 < segment.compression_ratio


def test_words_have_times_in_order(client: OpenAI) -> None:
    options = {"response_format": "verbose_json", "timestamp_granularities": ["word", "segment"]}
    answer = transcribe(client, **options)
    assert [word.word for word in answer.words] == TEXT.split()
    times = [time for word in answer.words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert 0 <= times[0] < times[-1] <= SECONDS
    assert answer.segments


def test_logprobs_are_those_of_the_words(client: OpenAI) -> None:
    answer = transcribe(client, include=["logprobs"])
    assert [item.token for item in answer.logprobs] == TEXT.split()
    assert all(-1 < item.logprob <= 0 for item in answer.logprobs)
    assert bytes(map(int, answer.logprobs[0].bytes)) == b"three"


def test_a_stream_has_deltas_segments_and_one_end(client: OpenAI) -> None:
    events = list(transcribe(client, stream=True))
    kinds = [event.type for event in events]
    deltas = [event.delta for event in events if event.type == "transcript.text.delta"]
    assert len(deltas) >= 2
    assert "".join(deltas) == TEXT
    assert kinds == [
        *["transcript.text.delta"] * len(deltas),
        *("transcript.text.segment", "transcript.text.done"),
    ]
    assert (events[-2].text, events[-2].speaker, events[-2].id) == (TEXT, "", "seg_0")
    assert events[-1].text == TEXT


def test_a_stream_of_a_long_recording_only_grows(client: OpenAI, tmp_path: Any) -> None:
    once, rate = soundfile.read(CLIP, dtype="float32")
    parts = [once, np.zeros(rate, np.float32)] * 4
    soundfile.write(tmp_path / "long.flac", np.concatenate(parts), rate)
    events = list(transcribe(client, file=tmp_path / "long.flac", stream=True))
    text = " ".join([TEXT] * 4)
    deltas = [event.delta for event in events if event.type == "transcript.text.delta"]
    assert "".join(deltas) == text == events[-1].text
    segments = [event for event in events if event.type == "transcript.text.segment"]
    assert len(segments) >= 2
    assert segments[-1].start > 10
    whole = transcribe(client, file=tmp_path / "long.flac")
    assert whole.text == text


def test_what_other_servers_take_is_taken(client: OpenAI) -> None:
    answer = transcribe(
        client,
        prompt="a menu",
        temperature=0,
        chunking_strategy={"type": "server_vad", "threshold": 0.4},
        extra_body={"engine": "eager", "decoding": "speculative", "lora": "on", "hotwords": "x"},
    )
    assert answer.text == TEXT
    raw = client.audio.transcriptions.with_raw_response.create(
        file=CLIP, model="tiny", prompt="a menu", extra_body={"hotwords": "x", "vad_filter": True}
    )
    assert raw.headers["X-Ignored-Fields"] == "hotwords, vad_filter, prompt"


def test_lora_off_is_another_model(client: OpenAI) -> None:
    assert transcribe(client, extra_body={"lora": "off"}).text != TEXT


def test_silence_is_an_empty_text_that_says_why(client: OpenAI, tmp_path: Any) -> None:
    soundfile.write(tmp_path / "quiet.wav", np.zeros(16_000, np.float32), 16_000)
    answer = transcribe(client, file=tmp_path / "quiet.wav", response_format="verbose_json")
    assert (answer.text, answer.segments) == ("", [])
    assert "no speech" in answer.warnings[0]


def test_models_are_listed_and_shown(client: OpenAI) -> None:
    listed = {model.id: model for model in client.models.list()}
    assert {"tiny", "granite-speech-4.1-2b", "whisper-1"} <= set(listed)
    assert listed["granite-speech-4.1-2b"].owned_by == "ibm-granite"
    assert client.models.retrieve("tiny").id == "tiny"
    assert client.models.retrieve("granite-speech-4.1-2b").owned_by == "ibm-granite"
    turbo = "granite-speech-5.0-470m-turboctc"
    assert listed[turbo].to_dict()["commercial_use"]
    assert not listed[f"{turbo}-nc"].to_dict()["commercial_use"]
    assert listed[f"{turbo}-nc"].to_dict()["licence"].startswith("CC-BY-NC-SA-4.0")
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-7")


@pytest.mark.filterwarnings("ignore:deprecated")  # the client's word on its own method
def test_translations_say_that_this_model_has_none(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="has no task 'translate'"):
        client.audio.translations.create(file=CLIP, model="tiny")


@pytest.mark.parametrize(
    ("options", "param", "message"),
    [
        ({"response_format": "mp3"}, "response_format", "'mp3'"),
        ({"response_format": "diarized_json"}, "response_format", "speakers apart"),
        ({"temperature": "warm"}, "temperature", "'warm'"),
        ({"temperature": 1.5}, "temperature", "less than or equal to 1"),
        ({"temperature": 0.5, "extra_body": {"decoding": "beam"}}, "temperature", "'beam'"),
        ({"timestamp_granularities": ["word"]}, "timestamp_granularities", "'verbose_json'"),
        ({"include": ["logprobs"], "response_format": "text"}, "include", "'json'"),
        ({"include": ["everything"]}, "include", "'logprobs'"),
        ({"stream": True, "response_format": "srt"}, "stream", "'srt'"),
        ({"chunking_strategy": "manual"}, "chunking_strategy", "'auto'"),
        ({"language": "xx"}, None, "got 'xx'"),
        ({"keywords": ["IBM"]}, None, "takes no keywords"),
        ({"extra_body": {"adapter": "none"}}, "adapter", "no adapter 'none'"),
        ({"extra_body": {"engine": "fast"}}, "engine", "'fast'"),
        ({"file": ("empty.wav", b"")}, "file", "empty"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_wrong_value_is_named(
    client: OpenAI, options: dict[str, Any], param: str | None, message: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=message) as caught:
        transcribe(client, **options)
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"
    assert caught.value.code == "invalid_value"


def test_an_unknown_model_is_not_found_and_nothing_is_opened(client: OpenAI) -> None:
    for name in ("gpt-7", "../assets", "openai/whisper-large-v3"):
        with pytest.raises(openai.NotFoundError) as caught:
            transcribe(client, model=name)
        assert (caught.value.param, caught.value.code) == ("model", "model_not_found")
        assert "granite-speech-4.1-2b" in caught.value.message


def test_a_file_that_is_no_sound_is_told_by_its_own_name(client: OpenAI) -> None:
    with pytest.raises(openai.APIStatusError, match="letter.mp3") as caught:
        transcribe(client, file=("letter.mp3", b"dear sir or madam"))
    assert (caught.value.status_code, caught.value.param) == (415, "file")
    assert "/" not in caught.value.message.split(": ")[0]


def test_a_temperature_samples_and_is_reported(client: OpenAI) -> None:
    answer = transcribe(client, temperature=0.2, response_format="verbose_json")
    assert answer.segments[0].temperature == 0.2
    assert math.isfinite(answer.segments[0].avg_logprob)
