"""The API names as tools of the Model Context Protocol, and what is said where it is not installed.

The ``mcp`` extra of Gradio is not among the requirements (docs/deploy.md says why), so one half of
these tests is always skipped. Run alone: ``python -m pytest -m slow tests/test_app_mcp.py``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from app_server import ROOT, running_app

THERE = find_spec("mcp") is not None
pytestmark = pytest.mark.slow
NAMES = {"transcribe", "models", "compare", "profile", "read_trace"}


def ask(address: str, method: str, **params: Any) -> dict[str, Any]:
    """One JSON-RPC request to the server; its result."""
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    request = urllib.request.Request(
        f"{address}/gradio_api/mcp/",
        json.dumps(body).encode(),
        {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
        },
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        lines = answer.read().decode().splitlines()
    told = [line.removeprefix("data:").strip() for line in lines if line.startswith(("data:", "{"))]
    replies = [json.loads(line) for line in told if line.startswith("{")]
    found = next(reply for reply in replies if reply.get("id") == 1)
    assert "result" in found, found
    return found["result"]


@pytest.mark.skipif(not THERE, reason="MCP is not installed: pip install 'gradio[mcp]'")
def test_the_tools_are_the_api_names(speech_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GSL_MCP", "1")
    with running_app(str(speech_folder)) as address:
        tools = {tool["name"]: tool for tool in ask(address, "tools/list")["tools"]}
        assert set(tools) == NAMES
        assert "recording" in tools["transcribe"]["description"]
        assert "audio" in tools["transcribe"]["inputSchema"]["properties"]
        said = ask(address, "tools/call", name="models", arguments={})
        assert "granite-speech-4.1-2b" in json.dumps(said)
        assert not said.get("isError")


@pytest.mark.skipif(THERE, reason="MCP is installed")
def test_without_what_it_needs_the_switch_says_how_to_get_it() -> None:
    command = [sys.executable, "app.py", "--mcp", "--device", "cpu", "--port", "0"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 2
    assert "pip install 'gradio[mcp]'" in ended.stderr
    assert "Traceback" not in ended.stderr
