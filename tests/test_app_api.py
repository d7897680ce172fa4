"""The API as programs use it: gradio_client against a running app."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from app_server import TINY, running_app
from bundled import EXAMPLES, is_outside, transcripts
from core.text.transcript import Transcript
from core.transcription.clip import OUTSIDE

needs_tiny = pytest.mark.skipif(
    not (TINY / "config.json").is_file(), reason="assets/tiny is not there: make demo-model"
)
TRANSCRIPTS = transcripts()


@pytest.fixture(scope="module")
def client(speech_folder: Path) -> Iterator[Client]:
    """A client of an app whose model is the bundled one, or a random one where that is missing."""
    model = "tiny" if (TINY / "config.json").is_file() else str(speech_folder)
    with running_app(model) as address:
        client = Client(address, verbose=False, analytics_enabled=False)
        yield client
        client.close()


def transcribe(client: Client, file: Path | str, **options: Any) -> dict[str, Any]:
    """One call of ``/transcribe``."""
    answer = client.predict(handle_file(str(file)), api_name="/transcribe", **options)
    assert isinstance(answer, dict)
    return answer


def example(name: str) -> Path:
    """The example recording that says ``name``."""
    return EXAMPLES / next(file for file, text in TRANSCRIPTS.items() if text == name)


def test_the_api_is_documented(client: Client) -> None:
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(endpoints) == {"/transcribe", "/models", "/compare", "/profile", "/read_trace"}
    parameters = endpoints["/transcribe"]["parameters"]
    assert [p["parameter_name"] for p in parameters] == [
        *("audio", "model", "engine", "lora", "decoding", "task", "language", "target_language"),
        *("keywords", "instruction", "num_beams", "temperature", "max_new_tokens", "adapter"),
        *("prefix_text", "edit_rounds", "channels"),
    ]
    assert [p["parameter_name"] for p in parameters if not p["parameter_has_default"]] == ["audio"]


def test_a_transcript_has_every_key_and_no_path(client: Client) -> None:
    answer = transcribe(client, example("three one eight"), max_new_tokens=8)
    assert set(answer) == set(Transcript.__dataclass_fields__)
    assert answer["file"] == "string_three_one_eight.flac"
    assert {phase["name"] for phase in answer["phases"]} >= {"decode_audio", "encoder", "prefill"}


def test_models_says_what_is_known_and_loaded(client: Client) -> None:
    transcribe(client, example("five"), max_new_tokens=4)
    models = client.predict(api_name="/models")
    assert "granite-speech-4.1-2b" in {model["name"] for model in models}
    assert [model["loaded"] for model in models].count(True) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "no such model"}, "neither a folder"),
        ({"keywords": "IBM"}, "takes no keywords"),
        ({"language": "xx"}, "got 'xx'"),
        ({"task": "instruct"}, "without an instruction"),
        ({"task": "instruct", "instruction": "say <|audio|>"}, "reserves"),
        ({"engine": "fast"}, "fast"),
    ],
)
def test_a_wrong_option_gets_a_sentence(
    client: Client, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(AppError) as caught:
        transcribe(client, example("five"), **options)
    assert message in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_a_file_that_is_no_sound_gets_a_sentence_and_the_app_goes_on(
    client: Client, tmp_path: Path
) -> None:
    bad = tmp_path / "letter.wav"
    bad.write_text("dear sir or madam")
    with pytest.raises(AppError) as caught:
        transcribe(client, bad)
    assert "letter.wav" in str(caught.value)
    assert str(tmp_path) not in str(caught.value)
    assert transcribe(client, example("five"), max_new_tokens=4)["audio_s"] > 0


def test_silence_gives_no_words(client: Client, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "quiet.wav", np.zeros(16_000, np.float32), 16_000)
    answer = transcribe(client, tmp_path / "quiet.wav")
    assert answer["text"] == ""
    assert "no speech" in answer["warnings"][0]


def test_other_files_of_this_machine_stay_here(client: Client) -> None:
    with pytest.raises((AppError, ValueError, OSError)):
        client.predict(
            {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}, api_name="/transcribe"
        )


@needs_tiny
def test_every_example_is_heard_right_or_said_to_be_outside(client: Client) -> None:
    heard = {name: transcribe(client, EXAMPLES / name) for name in TRANSCRIPTS}
    outside = {name for name in heard if is_outside(name)}
    warned = {name for name, answer in heard.items() if OUTSIDE in answer["warnings"]}
    wrong = {
        name: heard[name]["text"] for name in heard if heard[name]["text"] != TRANSCRIPTS[name]
    }
    assert outside
    assert warned == outside
    assert len(wrong.keys() - outside) <= 1, wrong  # of twenty


@needs_tiny
def test_callers_at_once_each_get_their_own_text(client: Client) -> None:
    names = [name for name in TRANSCRIPTS if name.startswith("string")] * 2
    with ThreadPoolExecutor(4) as pool:
        texts = list(pool.map(lambda n: transcribe(client, EXAMPLES / n)["text"], names))
    alone = {name: transcribe(client, EXAMPLES / name)["text"] for name in set(names)}
    assert texts == [alone[name] for name in names]


@needs_tiny
def test_without_lora_it_does_not_hear(client: Client) -> None:
    on = transcribe(client, example("three one eight"), lora="on")
    off = transcribe(client, example("three one eight"), lora="off")
    assert (on["lora"], off["lora"]) == (True, False)
    assert off["text"] != on["text"]


@needs_tiny
def test_who_leaves_ends_the_work_and_the_next_need_not_wait_for_it(
    client: Client, tmp_path: Path
) -> None:
    once, rate = soundfile.read(example("three one eight"), dtype="float32")
    long = tmp_path / "long.flac"
    soundfile.write(long, np.tile(np.concatenate([once, np.zeros(rate, np.float32)]), 100), rate)
    begin = time.monotonic()
    transcribe(client, example("three one eight"))
    own_s = time.monotonic() - begin
    address = f"{client.src.rstrip('/')}/gradio_api"
    with httpx.Client(base_url=address, timeout=60) as http:
        (path,) = http.post("/upload", files={"files": ("long.flac", long.read_bytes())}).json()
        recording = {"path": path, "meta": {"_type": "gradio.FileData"}}
        event = http.post("/call/v2/transcribe", json={"audio": recording}).json()["event_id"]
        with pytest.raises(httpx.ReadTimeout):
            http.get(f"/call/transcribe/{event}", timeout=2 * own_s + 1)
    begin = time.monotonic()
    transcribe(client, example("three one eight"))
    assert time.monotonic() - begin < 3 * own_s + 1  # all of the long one takes a hundred times it
