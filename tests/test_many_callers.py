"""Fifty callers at once through the API: every one is answered, with its own text.

Run alone: ``python -m pytest -m slow tests/test_many_callers.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from typing import Any

import psutil
import pytest
from gradio_client import Client, handle_file

from app_server import TINY, running_app
from bundled import EXAMPLES, transcripts

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (TINY / "config.json").is_file(), reason="assets/tiny is not there: make demo-model"
    ),
]
CALLERS, PATIENCE_S = 50, 120.0
TRANSCRIPTS = transcripts()
GROWTH_BYTES = 300 * 2**20  # of the app from the first wave to the second, buffers included


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with running_app("tiny") as url:
        yield url


def call(address: str, name: str) -> dict[str, Any]:
    """One caller with a connection of its own: what it got, or what it was told."""
    patient = {"timeout": PATIENCE_S}  # fifty read the page's description at the same moment
    client = Client(address, verbose=False, analytics_enabled=False, httpx_kwargs=patient)
    try:
        return client.predict(handle_file(str(EXAMPLES / name)), api_name="/transcribe")
    except Exception as error:
        return {"file": name, "told": str(error)}
    finally:
        client.close()


def wave(address: str) -> list[dict[str, Any]]:
    """Every caller at once."""
    names = list(islice(cycle(TRANSCRIPTS), CALLERS))
    with ThreadPoolExecutor(CALLERS) as pool:
        return list(pool.map(lambda name: call(address, name), names))


def app_bytes(address: str) -> int:
    """Resident memory of the app at ``address``."""
    port = address.rpartition(":")[2]
    return sum(
        process.memory_info().rss
        for process in psutil.Process().children(recursive=True)
        if f"--port {port}" in " ".join(process.cmdline())
    )


def test_everybody_is_answered_with_their_own_text_and_memory_comes_back(address: str) -> None:
    alone = {name: call(address, name)["text"] for name in TRANSCRIPTS}
    first = wave(address)
    before = app_bytes(address)
    assert before > 0
    second = wave(address)
    for answer in (*first, *second):
        if "told" in answer:
            assert "queue is full" in answer["told"].casefold()
        else:
            assert answer["text"] == alone[answer["file"]]
    answered = sum("text" in answer for answer in (*first, *second))
    assert answered >= CALLERS  # the queue holds more than fifty; being turned away is rare
    assert app_bytes(address) - before < GROWTH_BYTES
