"""The app as a visitor meets it: ``python app.py`` in a process of its own, on a free port.

In: a model. Out: the address, for as long as the ``with`` block lasts.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TINY = ROOT / "assets" / "tiny"
START_S = 240


@contextmanager
def running_app(model: str) -> Iterator[str]:
    """Start the app with ``model``, wait until it answers, end it afterwards.

    Raises:
        RuntimeError: it ended, or did not answer in time; with what it wrote.
    """
    with _running(["app.py"], model, {}) as address:
        yield address


@contextmanager
def running_api(model: str, **environment: str) -> Iterator[str]:
    """As :func:`running_app`, of the API without the page."""
    with _running(["-m", "app.api"], model, environment, "/healthz") as address:
        yield address


@contextmanager
def _running(
    program: list[str], model: str, environment: dict[str, str], path: str = ""
) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, *program, "--model", model, "--port", str(port), "--device", "cpu"]
    # One thread, as in conftest.py: the other core is Chromium's.
    one_thread = {"OMP_NUM_THREADS": "1", **os.environ, **environment}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=one_thread,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait(process, address + path)
        yield address
    finally:
        process.terminate()
        process.communicate(timeout=30)


def _wait(process: subprocess.Popen[str], address: str) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the app ended: {process.communicate()[0]}")
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"the app did not answer within {START_S} s")
