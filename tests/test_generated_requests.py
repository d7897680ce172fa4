"""Generated arguments of both APIs: an answer in its shape, or one line that says what is wrong.

The model is a small random one, and really runs. Run alone:
``python -m pytest -m slow tests/test_generated_requests.py``.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tiny_models
from api_caller import FORMATS, TRANSCRIBE, TRANSLATE, GradioCaller, HttpCaller, Request, form
from app.api.asgi import create_api
from app.service.deployment import Deployment
from app.service.limits import Limits
from app.service.service import TranscriptionService
from app.serving import serve
from app.ui import build_app
from mutation import ODD, RAW, damaged_bytes, damaged_json, generated
from promise import hold
from recorded import TRACE
from recordings import clip, written

pytestmark = pytest.mark.slow
WAV = written(clip(16_000, 0.3), 16_000, "WAV", "PCM_16")
VALUES: dict[str, tuple[str, ...]] = {
    "model": ("", "whisper-1", "tiny", "../x", "/etc"),
    "language": ("en", "English", "de-DE", "xx", ""),
    "languages[]": ("en", "de", "", "?"),
    "prompt": ("IBM, Granite", "<|audio|>", "a\0b"),
    "keywords[]": ("IBM", ",,,", "<|end_of_text|>"),
    "response_format": (*FORMATS, "xml"),
    "temperature": ("0", "0.5", "1", "2", "nan", "-0", "1e-300", "inf"),
    "timestamp_granularities[]": ("word", "segment", "letter"),
    "include[]": ("logprobs", "all"),
    "chunking_strategy": ("auto", '{"type": "server_vad"}', "{", '{"a":' * 5_000),
    "chunking_strategy[type]": ("server_vad", "x"),
    "chunking_strategy[threshold]": ("0.5", "7", "nan"),
    "stream": ("true", "false", "perhaps", "1"),
    "engine": ("eager", "turbo"),
    "lora": ("auto", "on", "off", "yes"),
    "decoding": ("greedy", "speculative", "fast-draft", "beam", "sample", "?"),
    "adapter": ("", "none of ours", " "),
    "prefix_text": ("", "one two", "<|audio|>"),
    "channels": ("mixed", "speakers", "left"),
    "unknown": ("1", "ä\r\nX-Forged: 1"),
}


def service_of_random_model(folder: Path) -> TranscriptionService:
    """A service whose model was just made, in ``folder``."""
    folder.mkdir()
    raw = tiny_models.raw_config()
    model = tiny_models.random_model(raw, seed=1)
    tiny_models.write_checkpoint(folder, raw, model)
    tiny_models.write_adapter(folder, model, seed=2)
    tiny_models.write_tokenizer(folder / "tokenizer.json")
    limits = Limits(no_compile="nothing is compiled in this test", max_audio_s=5.0)
    return TranscriptionService(model=str(folder), device="cpu", dtype="float32", limits=limits)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TranscriptionService]:
    service = service_of_random_model(tmp_path_factory.mktemp("service") / "model")
    yield service
    service.close()


def odd_text(rng: random.Random) -> str:
    """A text where a value should be."""
    value = rng.choice(ODD)
    text = value if isinstance(value, str) else json.dumps(value)
    return text.removeprefix(RAW)[:70_000].encode("utf-8", "replace").decode()


def http_request(rng: random.Random) -> tuple[str, Request]:
    """A form of a few fields, one or two of them odd; now and then its bytes damaged."""
    fields = []
    for name in rng.sample(list(VALUES), rng.choice((1, 2, 4))):
        odd = rng.random() < 0.25
        fields.append((name, odd_text(rng) if odd else rng.choice(VALUES[name])))
    if rng.random() < 0.1:
        fields.append(rng.choice(fields))
    if rng.random() < 0.05:
        fields.append((odd_text(rng)[:200] or "x", "1"))
    request = form(fields, WAV, rng.choice((TRANSCRIBE, TRANSCRIBE, TRANSLATE)))
    said = ", ".join(f"{name}={text[:20]!r}" for name, text in fields)
    if rng.random() < 0.3:
        done, body = damaged_bytes(rng, request.body[0], head=900)
        at = rng.randrange(len(body) + 1)
        said = f"{said}; body: {done}"
        request = Request(request.path, (body[:at], body[at:]), headers=request.headers)
    if rng.random() < 0.1:
        kinds = ("text/plain", "multipart/form-data", "multipart/form-data; boundary=", "")
        headers = {
            "Content-Type": rng.choice(kinds),
            "Content-Length": rng.choice(("-1", "9", "x")),
        }
        said = f"{said}; {headers}"
        request = Request(request.path, request.body, headers=headers)
    if rng.random() < 0.1:
        path = rng.choice(("/v1/models/", "/v1/", "/v1/models/%00", "/healthz/")) + "x" * 9
        method = rng.choice(("GET", "DELETE", "PUT", "PATCH", "OPTIONS"))
        said, request = f"{method} {path}", Request(path, (), method)
    return said, request


def test_odd_requests_of_http_routes(service: TranscriptionService) -> None:
    caller = HttpCaller(create_api(service, Deployment()))
    caller.ask(form([], WAV))  # the model is loaded once
    hold(generated("http", 250, http_request), caller.ask).check()
    caller.ask(form([], WAV))
    caller.close()


def test_odd_arguments_of_gradio_calls(service: TranscriptionService) -> None:
    page = build_app(service, Deployment(public=True))
    caller = GradioCaller(serve(page, block=False))
    sound, trace = caller.upload(WAV, "a.wav"), caller.upload(TRACE.read_bytes(), "t.json")
    text, off = "", "off"
    whole: dict[str, list[Any]] = {
        "transcribe": [sound, service.model, "eager", off, "greedy", "transcribe", text, text, text]
        + [text, 4, 0.7, 4, text, text, 1, "mixed"],
        "models": [],
        "compare": [sound, {"engine": "fast"}, {"lora": False}, service.model, 1, True],
        "profile": [sound, {"decoding": "none"}, service.model, 1],
        "read_trace": [trace],
    }

    def make(rng: random.Random) -> tuple[str, tuple[str, bytes]]:
        name = rng.choice(("transcribe",) * 6 + tuple(whole))
        said, content = damaged_json(rng, {"data": whole[name]})
        return f"{name}: {said}", (name, content)

    hold(generated("gradio", 150, make), lambda case: caller.ask(*case)).check()
    caller.close()
    page.close()
