"""300 mixed requests of 20 callers: each has its own answer, nobody waits for one who left.

Run alone: ``python -m pytest -m slow tests/test_api_load.py``.
"""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import httpx
import numpy as np
import pytest
import soundfile

from app_server import TINY, running_api
from bundled import EXAMPLES, transcripts

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (TINY / "config.json").is_file(), reason="assets/tiny is not there: make demo-model"
    ),
]
ROUTE = "/v1/audio/transcriptions"
REQUESTS, CALLERS, GROWTH = 300, 20, 1.05
NAMES = sorted(transcripts())
WRONG = (
    ({"response_format": "mp3"}, 400),
    ({"model": "gpt-7"}, 404),
    ({"language": "xx"}, 400),
)


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with running_api("tiny") as address, httpx.Client(base_url=address, timeout=120) as client:
        while client.get("/readyz").status_code != 200:
            time.sleep(0.1)
        yield client


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Five minutes with pauses, as a file."""
    file = tmp_path_factory.mktemp("long") / "long.flac"
    once, rate = soundfile.read(EXAMPLES / NAMES[0], dtype="float32")
    parts = np.concatenate([once, np.zeros(rate, np.float32)])
    soundfile.write(file, np.tile(parts, 1 + 300 * rate // len(parts)), rate)
    return file.read_bytes()


def sample(http: httpx.Client, name: str) -> float:
    found = re.search(rf"^{name} (\S+)$", http.get("/metrics").text, re.MULTILINE)
    assert found is not None
    return float(found[1])


def post(http: httpx.Client, data: bytes, timeout: float = 120, **fields: str) -> httpx.Response:
    return http.post(ROUTE, files={"file": ("a.flac", data)}, data=fields, timeout=timeout)


def ask(http: httpx.Client, long: bytes, alone: dict[str, str], seed: int) -> str:
    """One request of a kind that its seed chooses; "" where it went as it should."""
    chance = random.Random(seed)
    name = chance.choice(sorted(alone))
    data, kind = (EXAMPLES / name).read_bytes(), chance.random()
    if kind < 0.1:
        fields, status = chance.choice(WRONG)
        answer = post(http, data, **fields)
        return "" if answer.status_code == status else f"{fields}: {answer.text}"
    if kind < 0.15:
        answer = post(http, b"dear sir or madam")
        return "" if answer.status_code == 415 else answer.text
    if kind < 0.35:  # who leaves
        with suppress(httpx.TimeoutException):
            post(http, chance.choice([data, long]), timeout=chance.uniform(0.01, 1.0))
        return ""
    asked = chance.choice([{}, {"stream": "true"}, {"decoding": "speculative"}])
    answer = post(http, data, **asked)
    if answer.status_code != 200:
        return f"{asked}: {answer.text}"
    found = (
        answer.text.split("\n\n")[-3].removeprefix("data: ") if "stream" in asked else answer.text
    )
    return "" if json.loads(found)["text"] == alone[name] else f"{name}: {found}"


def settled(http: httpx.Client) -> None:
    """Wait until nobody waits and nothing runs."""
    deadline = time.monotonic() + 60
    while sample(http, "gsl_queue_length") or sample(http, "gsl_running_clips"):
        assert time.monotonic() < deadline, "a place was never freed"
        time.sleep(0.02)


def test_everybody_is_answered_and_memory_stays_flat(http: httpx.Client, long: bytes) -> None:
    alone = {name: post(http, (EXAMPLES / name).read_bytes()).json()["text"] for name in NAMES}
    resident = []
    for wave in range(3):  # the first warms up
        with ThreadPoolExecutor(CALLERS) as pool:
            seeds = range(wave * REQUESTS // 3, (wave + 1) * REQUESTS // 3)
            wrong = [said for said in pool.map(partial(ask, http, long, alone), seeds) if said]
        assert not wrong
        settled(http)
        resident.append(sample(http, "process_resident_memory_bytes"))
    assert resident[2] <= GROWTH * resident[1]


def test_the_next_caller_need_not_wait_for_one_who_left(http: httpx.Client, long: bytes) -> None:
    data, own_s = (EXAMPLES / NAMES[0]).read_bytes(), []
    for _ in range(5):
        begin = time.monotonic()
        post(http, data)
        own_s.append(time.monotonic() - begin)
    with pytest.raises(httpx.TimeoutException):
        post(http, long, timeout=1.0)
    begin = time.monotonic()
    assert post(http, data).status_code == 200
    # A step of a long recording is a phase or a token of a batch of four spans.
    assert time.monotonic() - begin <= 2 * max(own_s) + 1
