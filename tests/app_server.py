"""The app as a visitor meets it, in a process of its own, on a free port; or the API in a thread.

In: a model. Out: the address, for as long as the ``with`` block lasts.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import uvicorn
from fastapi import FastAPI

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
def running_serve(model: str) -> Iterator[str]:
    """As :func:`running_api`, by Ray Serve on a cluster of its own; Ray keeps nothing in HOME."""
    port = free_port()
    application = {
        "name": "speech",
        "route_prefix": "/",
        "import_path": "app.api.serve:deployment",
        "args": {"model": model, "device": "cpu"},
    }
    with tempfile.TemporaryDirectory() as home:
        config = Path(home, "serve.yaml")
        http = {"host": "127.0.0.1", "port": port}
        config.write_text(json.dumps({"http_options": http, "applications": [application]}))
        command = [str(Path(sys.executable).with_name("serve")), "run", str(config)]
        environment = {"HOME": home, "RAY_USAGE_STATS_ENABLED": "0", "RAY_SERVE_LOG_TO_STDERR": "0"}
        with _process(command, environment, f"http://127.0.0.1:{port}", "/readyz") as address:
            yield address


@contextmanager
def serving(api: FastAPI) -> Iterator[str]:
    """Serve ``api`` on a thread of this process; its address."""
    server = uvicorn.Server(uvicorn.Config(api, port=0, log_level="warning"))
    thread = Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def _running(
    program: list[str], model: str, environment: dict[str, str], path: str = ""
) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, *program, "--model", model, "--port", str(port), "--device", "cpu"]
    with _process(command, environment, f"http://127.0.0.1:{port}", path) as address:
        yield address


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def _process(
    command: list[str], environment: dict[str, str], address: str, path: str
) -> Iterator[str]:
    # One thread, as in conftest.py: the other core is Chromium's.
    # Nothing is compiled in the background: tests share the processor.
    quiet = {"OMP_NUM_THREADS": "1", "GRANITE_SPEECH_PACKAGES": "off"}
    settings = {**quiet, **os.environ, **environment}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        _wait(process, address + path)
        yield address
    finally:
        process.terminate()
        process.communicate(timeout=60)


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
