"""Bad input through the API, kind by kind: a sentence for whoever sent it, and the app goes on.

The model is a small random one in a folder, so that folders beside it can be broken in every way.
Run alone: ``python -m pytest -m slow tests/test_app_bad_input.py``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from safetensors.numpy import load_file, save_file

from app_server import running_app
from bundled import EXAMPLES
from recordings import clip, encode, pcm_wav, written

pytestmark = pytest.mark.slow  # an app of its own, and thirty requests
RATE = 16_000
LONGEST_S = 5
CLIP = clip(RATE)


def with_nan() -> bytes:
    """A second of sound with a hole in it."""
    samples = CLIP.copy()
    samples[5:9] = np.nan
    return written(samples, RATE, "WAV", "FLOAT")


REFUSED: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "empty": ("a.wav", lambda: b"", "0 bytes"),
    "zero samples": ("a.wav", lambda: pcm_wav(np.zeros(0, np.int16)), "without samples"),
    "not a number": ("a.wav", with_nan, "4 NaN or infinite samples"),
    "text": ("a.wav", lambda: b"dear sir or madam", "not a recording"),
    "half an m4a": (
        "a.m4a",
        lambda: encode("mp4", "aac", RATE, CLIP)[:4000],
        "not a recording",
    ),
    "too long": (
        "a.flac",
        lambda: written(clip(RATE, LONGEST_S + 30.0), RATE, "FLAC", "PCM_16"),
        "this page takes up to",
    ),
}
TAKEN: dict[str, tuple[str, Callable[[], bytes]]] = {
    "clipped": ("a.wav", lambda: written(np.sign(CLIP), RATE, "WAV", "PCM_16")),
    "8 bit": ("a.wav", lambda: written(CLIP, RATE, "WAV", "PCM_U8")),
    "24 bit": ("a.wav", lambda: written(CLIP, RATE, "WAV", "PCM_24")),
    "stereo": ("a.wav", lambda: written(np.stack([CLIP, CLIP], 1), RATE, "WAV", "PCM_16")),
    "5.1": ("a.flac", lambda: encode("flac", "flac", 48_000, clip(48_000), layout="5.1")),
    "8 kHz": ("a.wav", lambda: written(clip(8_000), 8_000, "WAV", "PCM_16")),
    "192 kHz": ("a.wav", lambda: written(clip(192_000), 192_000, "WAV", "PCM_16")),
    "wrong extension": ("a.mp3", lambda: written(CLIP, RATE, "FLAC", "PCM_16")),
    "cut off": ("a.wav", lambda: written(clip(RATE, 2.0), RATE, "WAV", "PCM_16")[:32_044]),
}


@pytest.fixture(scope="module")
def client(speech_folder: Path) -> Iterator[Client]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("GSL_MAX_AUDIO_S", str(LONGEST_S))
        with running_app(str(speech_folder)) as address:
            client = Client(address, verbose=False, analytics_enabled=False)
            yield client
            client.close()


def transcribe(client: Client, file: Path, **options: Any) -> dict[str, Any]:
    """One short call of ``/transcribe``."""
    options = {"max_new_tokens": 4, **options}
    answer = client.predict(handle_file(str(file)), api_name="/transcribe", **options)
    assert isinstance(answer, dict)
    return answer


def refusal(client: Client, file: Path, **options: Any) -> str:
    """What the caller is told; the app answers the next request all the same."""
    with pytest.raises(AppError) as caught:
        transcribe(client, file, **options)
    said = str(caught.value)
    assert "Traceback" not in said
    assert "\n" not in said.strip()
    assert client.predict(api_name="/models")
    return said


@pytest.fixture
def good(tmp_path: Path) -> Path:
    (tmp_path / "good.wav").write_bytes(written(CLIP, RATE, "WAV", "PCM_16"))
    return tmp_path / "good.wav"


@pytest.mark.parametrize("kind", REFUSED)
def test_a_recording_that_cannot_be_read_gets_a_sentence(
    client: Client, tmp_path: Path, kind: str
) -> None:
    name, content, said = REFUSED[kind]
    (tmp_path / name).write_bytes(content())
    assert said in refusal(client, tmp_path / name)


@pytest.mark.parametrize("kind", TAKEN)
def test_an_odd_recording_is_read(client: Client, tmp_path: Path, kind: str) -> None:
    name, content = TAKEN[kind]
    (tmp_path / name).write_bytes(content())
    assert transcribe(client, tmp_path / name)["audio_s"] == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("level", [0.0, 1e-5])
def test_silence_and_what_is_almost_silent_give_no_words(
    client: Client, tmp_path: Path, level: float
) -> None:
    noise = level * np.random.default_rng(0).standard_normal(2 * RATE)
    (tmp_path / "quiet.wav").write_bytes(written(noise.astype(np.float32), RATE, "WAV", "FLOAT"))
    answer = transcribe(client, tmp_path / "quiet.wav")
    assert answer["text"] == ""
    assert "no speech" in answer["warnings"][0]


@pytest.mark.parametrize("path", ["/etc", "/no/such/recording.wav"])
def test_a_folder_and_a_missing_file_are_refused(client: Client, path: str) -> None:
    sent = {"path": path, "meta": {"_type": "gradio.FileData"}}
    with pytest.raises((AppError, ValueError, OSError)) as caught:
        client.predict(sent, api_name="/transcribe")
    assert "Traceback" not in str(caught.value)
    assert client.predict(api_name="/models")


def test_no_recording_at_all_gets_a_sentence(client: Client) -> None:
    with pytest.raises(AppError, match="no recording yet"):
        client.predict(None, api_name="/transcribe")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": "no such model"}, "neither a folder"),
        ({"model": "somebody/something"}, "the Hub cannot be reached"),
        ({"task": "instruct", "instruction": "say <|audio|>"}, "reserves"),
        ({"language": "xx"}, "got 'xx'"),
        ({"task": "translate"}, "translate"),
        ({"max_new_tokens": 1000}, "context of 512"),
        ({"max_new_tokens": 10**6}, "1000000"),
        ({"num_beams": 99, "decoding": "beam"}, "99"),
        ({"lora": "perhaps"}, "perhaps"),
    ],
)
def test_a_request_that_cannot_be_met_gets_a_sentence(
    client: Client, options: dict[str, Any], said: str
) -> None:
    # Speech: where nobody speaks, nothing is written and no budget can be exceeded.
    assert said in refusal(client, EXAMPLES / "string_three_one_eight.flac", **options)


def without_a_shard(folder: Path) -> None:
    """An index that names a file which is not there."""
    names = list(load_file(folder / "model.safetensors"))
    (folder / "model.safetensors").unlink()
    index = {"weight_map": dict.fromkeys(names, "model-00001-of-00001.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def of_another_shape(folder: Path) -> None:
    """One tensor is too short."""
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in sorted(weights) if weights[name].ndim == 2)
    weights[name] = weights[name][:-1].copy()
    save_file(weights, folder / "model.safetensors")


def of_pickles(folder: Path) -> None:
    """Only a pickle."""
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def without_adapter(folder: Path) -> None:
    """No LoRA."""
    for file in folder.glob("adapter_*"):
        file.unlink()


BROKEN: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "a missing shard": (without_a_shard, "auto", "model-00001-of-00001.safetensors"),
    "a wrong shape": (of_another_shape, "auto", "shape"),
    "only pickles": (of_pickles, "auto", "safetensors"),
    "no adapter": (without_adapter, "on", "has no adapter_model.safetensors"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_model_that_cannot_be_loaded_gets_a_sentence(
    client: Client, good: Path, speech_folder: Path, kind: str
) -> None:
    damage, lora, said = BROKEN[kind]
    folder = good.parent / "model"
    shutil.copytree(speech_folder, folder)
    damage(folder)
    assert said in refusal(client, good, model=str(folder), lora=lora)
    assert transcribe(client, good)["audio_s"] == pytest.approx(1.0)
