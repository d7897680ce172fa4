"""OpenAI's routes over plain HTTP: what is refused, who waits, who leaves, what operators see.

The model is a stub that waits at a gate. Run alone: ``python -m pytest tests/test_api_http.py``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from threading import Event as Flag
from types import SimpleNamespace
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from app.api.asgi import create_api
from app.service.batching.waiting_line import QueueLimits
from app.service.deployment import Deployment
from app.service.limits import Limits
from app.service.service import TranscriptionService
from app_server import serving
from app_stubs import TRANSCRIPT
from core.checkpoint.catalog import CATALOG
from core.transcription.options import (
    DECODINGS,
    ENGINES,
    Event,
    Finished,
    PartialText,
    PhaseStarted,
    TranscribeOptions,
)
from recordings import clip, written

KEY = "sesame"
ROUTE = "/v1/audio/transcriptions"
WAV = written(clip(16_000, 0.2), 16_000, "WAV", "PCM_16")
SIX_SECONDS = written(clip(16_000, 6.0), 16_000, "WAV", "PCM_16")
WAITING, RUNNING = "gsl_queue_length", "gsl_running_clips"


class GatedLab:
    """Says "one two", waiting at ``gate`` in between; breaks where ``broken`` is set."""

    def __init__(self) -> None:
        self.model_info, self.max_audio_s = CATALOG["tiny"], 100.0
        self.compile_ledger = SimpleNamespace(seconds={})
        self.files = SimpleNamespace(num_bytes=10)
        self.device, self.dtype, self.has_adapter = "cpu", "torch.float32", True
        self.gate, self.ended = Flag(), 0
        self.broken = ""

    def check(self, **options: Any) -> None:
        TranscribeOptions(**options)

    def stream_batch(
        self, sources: list[Any], *, cancelled: Callable[[], bool], **options: Any
    ) -> Iterator[Event]:
        yield PhaseStarted(0, "encoder")
        for index in range(len(sources)):
            yield PartialText(index, "one", 1)
        while not self.gate.wait(0.01) and not cancelled():
            pass
        self.ended += cancelled()
        if self.broken:
            raise RuntimeError(self.broken)
        for index in range(len(sources)):
            yield Finished(index, replace(TRANSCRIPT, text="one two"))


class Server:
    """An API around a stub, on a port of its own."""

    def __init__(self) -> None:
        self.lab = GatedLab()
        service = TranscriptionService(
            loader=lambda name, **_: self.lab, limits=Limits(max_audio_s=5.0)
        )
        service.warm()
        here = Deployment(max_upload_mb=1, api_key=KEY)
        api = create_api(service, here, QueueLimits(places=2, batch=1))
        self.ending, self.service = ExitStack(), service
        self.address = self.ending.enter_context(serving(api))
        self.http = self.client()

    def client(self, **options: Any) -> httpx.Client:
        headers = {"Authorization": f"Bearer {KEY}"}
        return httpx.Client(
            base_url=self.address, **({"headers": headers, "timeout": 30} | options)
        )

    def post(self, file: bytes = WAV, **fields: Any) -> httpx.Response:
        return self.http.post(ROUTE, files={"file": ("a.wav", file)}, data=fields)

    def gauge(self, name: str) -> float:
        found = re.search(rf"^{name} (\S+)$", self.http.get("/metrics").text, re.M)
        assert found is not None
        return float(found[1])

    def wait_for(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, "it did not happen"
            time.sleep(0.01)

    def close(self) -> None:
        self.lab.gate.set()
        self.http.close()
        self.ending.close()
        self.service.close()


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def server(running: Server) -> Server:
    """The server, its gate open and nobody in it."""
    running.lab.gate.set()
    running.lab.broken = ""
    running.wait_for(lambda: running.gauge(WAITING) == running.gauge(RUNNING) == 0)
    return running


@pytest.fixture
def shut(server: Server) -> Iterator[Server]:
    """The server with its gate shut, and one caller at it."""
    server.lab.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(server.post)
        server.wait_for(lambda: server.gauge(RUNNING) == 1)
        yield server
        server.lab.gate.set()
        assert first.result().json()["text"] == "one two"


def error_of(response: httpx.Response) -> dict[str, Any]:
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "\n" not in error["message"]
    return error


def test_without_the_key_nothing_is_answered_but_that_it_lives(server: Server) -> None:
    with server.client(headers={}) as stranger:
        for path in ("/v1/models", "/metrics", "/v1/openapi.json"):
            assert stranger.get(path).status_code == 401
        refused = stranger.post(ROUTE, files={"file": WAV})
        assert refused.status_code == 401
        assert error_of(refused)["code"] == "invalid_api_key"
        assert refused.headers["WWW-Authenticate"] == "Bearer"
        for token in ("Bearer other", "Basic sesame", "Bearer sesam\u00e9".encode()):
            assert stranger.get("/v1/models", headers={"Authorization": token}).status_code == 401
        assert stranger.get("/healthz").json() == {"status": "ok"}
        assert stranger.get("/readyz").json() == {"status": "ready"}
    assert server.post().json()["text"] == "one two"


def test_it_is_not_ready_before_the_model_is_there() -> None:
    gate = Flag()

    def load(name: str, **_: Any) -> GatedLab:
        gate.wait(10)
        return GatedLab()

    service = TranscriptionService(loader=load)
    service.warm()
    transport = httpx.ASGITransport(create_api(service, Deployment()))

    async def status() -> int:
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return (await client.get("/readyz")).status_code

    assert asyncio.run(status()) == 503
    gate.set()
    service.close()


@pytest.mark.parametrize(
    ("parts", "status", "param", "said"),
    [
        ({"files": [("file", WAV), ("file", WAV)]}, 400, "file", "several files"),
        ({"files": [("model", (None, "tiny"))]}, 400, "file", "nothing came as 'file'"),
        ({"files": [("file", (None, "abc"))]}, 400, "file", "a text came as 'file'"),
        ({"files": [("audio", WAV)]}, 400, "file", "a file came as 'audio'"),
        ({"files": [("file", WAV), ("prompt", (None, "x" * 70_000))]}, 413, None, "64 KB"),
        (
            {"files": [("file", WAV), *[("keywords[]", (None, "x"))] * 101]},
            *(400, None, "more than 100 fields"),
        ),
        (
            {"files": [("file", WAV), *[("language", (None, "en"))] * 2]},
            *(400, "language", "more than once"),
        ),
        (
            {"files": [("file", WAV), ("chunking_strategy", (None, '{"a":' * 5_000))]},
            *(400, "chunking_strategy", "nested too deeply"),
        ),
        ({"json": {"file": "a.wav"}}, 415, None, "expected multipart/form-data"),
        ({"content": b"file=1"}, 415, None, "expected multipart/form-data"),
        (
            {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}},
            *(400, None, "the form is broken"),
        ),
        (
            {"content": b"x", "headers": {"Content-Type": "multipart/form-data; boundary=y"}},
            *(400, None, "the form is broken"),
        ),
        ({"files": [("file", SIX_SECONDS)]}, 413, "file", "at most 5 s"),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, str) else "",
)
def test_a_form_that_is_none_is_refused(
    server: Server, parts: dict[str, Any], status: int, param: str | None, said: str
) -> None:
    answer = server.http.post(ROUTE, **parts)
    error = error_of(answer)
    assert (answer.status_code, error["param"]) == (status, param)
    assert said in error["message"]
    assert server.post().status_code == 200


def test_a_large_upload_is_refused_before_it_is_there(server: Server) -> None:
    sent = 0

    def body(limit: int = 200) -> Iterator[bytes]:
        nonlocal sent
        yield b'--y\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(limit):
            sent += 2**20
            yield b"x" * 2**20

    place = ("127.0.0.1", int(server.address.rpartition(":")[2]))
    with socket.create_connection(place, timeout=10) as caller:  # the length is enough
        claim = f"Content-Length: {200 * 2**20}\r\nAuthorization: Bearer {KEY}"
        kind = "Content-Type: multipart/form-data; boundary=y"
        caller.sendall(f"POST {ROUTE} HTTP/1.1\r\nHost: here\r\n{kind}\r\n{claim}\r\n\r\n".encode())
        assert caller.recv(100).startswith(b"HTTP/1.1 413 ")
    headers = {"Content-Type": "multipart/form-data; boundary=y"}
    answer = server.http.post(ROUTE, content=body(), headers=headers)
    assert answer.status_code == 413
    assert "larger than 1 MB" in error_of(answer)["message"]
    assert sent < 100 * 2**20
    client = OpenAI(base_url=f"{server.address}/v1", api_key=KEY, max_retries=0)
    with pytest.raises(openai.APIStatusError, match="larger than 1 MB"):
        client.audio.transcriptions.create(file=b"x" * 5 * 2**20, model="tiny")
    assert server.post().status_code == 200


def test_unknown_paths_and_methods_are_told_in_the_same_shape(server: Server) -> None:
    wrong = server.http.get(ROUTE)
    assert (wrong.status_code, error_of(wrong)["code"]) == (405, "method_not_allowed")
    none = server.http.get("/v1/chat/completions")
    assert (none.status_code, error_of(none)["type"]) == (404, "not_found_error")


def test_names_of_unknown_fields_cannot_forge_a_header(server: Server) -> None:
    files = [("file", ("a.wav", WAV)), ('a"\u00e4, b', (None, "1")), ("x" * 200, (None, "1"))]
    header = server.http.post(ROUTE, files=files).headers["X-Ignored-Fields"]
    assert re.fullmatch(r"[\w.\[\]?-]{1,40}, x{40}", header, re.A)


def test_a_full_queue_turns_callers_away_until_there_is_room(shut: Server) -> None:
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(shut.post) for _ in range(2)]
        shut.wait_for(lambda: shut.gauge(WAITING) == 2)
        refused = shut.post()
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
        assert error_of(refused)["type"] == "rate_limit_error"
        shut.lab.gate.set()
        assert [one.result().json()["text"] for one in waiting] == ["one two"] * 2
    assert shut.post().status_code == 200


def test_who_leaves_the_queue_frees_a_place(shut: Server) -> None:
    with shut.client(timeout=0.5) as client, pytest.raises(httpx.ReadTimeout):
        client.post(ROUTE, files={"file": WAV})
    shut.wait_for(lambda: shut.gauge(WAITING) == 0)


@pytest.mark.parametrize("stream", ["", "true"])
def test_who_leaves_ends_the_work(server: Server, stream: str) -> None:
    server.lab.gate.clear()
    ended = server.lab.ended
    with server.client(timeout=0.5) as client, pytest.raises(httpx.ReadTimeout):
        client.post(ROUTE, files={"file": WAV}, data={"stream": stream})
    server.wait_for(lambda: server.lab.ended == ended + 1)
    server.wait_for(lambda: server.gauge(RUNNING) == 0)
    if not stream:
        assert f'route="{ROUTE}",status="499"' in server.http.get("/metrics").text


def test_what_breaks_here_is_told_in_general_words_and_logged(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.lab.broken = "a secret of ours"
    with caplog.at_level(logging.ERROR):
        answer = server.post()
    assert answer.status_code == 500
    error = error_of(answer)
    assert (error["type"], error["code"]) == ("server_error", "internal_error")
    assert "secret" not in error["message"]
    assert "a secret of ours" in caplog.text
    server.lab.broken = ""
    assert server.post().status_code == 200


def test_what_breaks_in_a_stream_is_its_last_event(server: Server) -> None:
    server.lab.broken = "a secret of ours"
    client = OpenAI(base_url=f"{server.address}/v1", api_key=KEY, max_retries=0)
    events = client.audio.transcriptions.create(file=WAV, model="tiny", stream=True)
    assert next(iter(events)).type == "transcript.text.delta"
    with pytest.raises(openai.APIError, match="went wrong here"):
        list(events)


def test_a_stream_is_lines_of_data_and_says_done_once(server: Server) -> None:
    answer = server.post(stream="true")
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    blocks = answer.text.split("\n\n")
    assert blocks.pop() == ""
    assert blocks.pop() == "data: [DONE]"
    events = [json.loads(block.removeprefix("data: ")) for block in blocks]
    assert [event["type"].rpartition(".")[2] for event in events] == ["delta", "delta", "done"]
    assert "".join(event.get("delta", "") for event in events) == events[-1]["text"] == "one two"


def test_metrics_are_in_the_format_that_prometheus_reads(server: Server) -> None:
    server.post()
    text = server.http.get("/metrics").text
    sample = r'[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? [0-9.e+-]+'
    comment = r"# (HELP|TYPE) [a-z_]+ .+"
    assert all(re.fullmatch(f"{sample}|{comment}", line) for line in text.splitlines())
    for name in ("gsl_audio_seconds_total", "gsl_batch_clips_count", "gsl_queue_wait_seconds_sum"):
        assert server.gauge(name) > 0
    assert server.gauge("process_resident_memory_bytes") > 2**20
    buckets = re.findall(r'gsl_phase_seconds_bucket\{phase="encoder",le="(\S+)"\} (\d+)', text)
    counts = [int(count) for _, count in buckets]
    assert counts == sorted(counts)
    assert buckets[-1][0] == "+Inf"


def test_the_document_of_the_api_names_every_field(server: Server) -> None:
    paths = server.http.get("/v1/openapi.json").json()["paths"]
    form = paths[ROUTE]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    fields = form["properties"]
    assert {"file", "model", "response_format", "stream", "lora", "adapter"} <= set(fields)
    assert tuple(fields["engine"]["enum"]) == ENGINES
    assert tuple(fields["decoding"]["anyOf"][0]["enum"]) == DECODINGS
