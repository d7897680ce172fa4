"""Every command of README and docs runs as printed: a copy of the checkout, an empty HOME, a shell.

In: the fenced blocks of :data:`test_docs.DOCS`. A block's lines run in order, in the copy, whose
``.venv`` is the environment of the tests; ports are free ones in place of the printed. What is left
out, and why, stands in :data:`LEFT_OUT`. Run alone: ``python -m pytest -m "slow or long"
tests/test_printed_commands.py``.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
import soundfile

from app_server import free_port
from bundled import EXAMPLES, tracked_files, transcripts
from recordings import encode
from snapshots import snapshot
from test_docs import DOCS, ROOT, blocks

pytestmark = pytest.mark.skipif(sys.prefix == sys.base_prefix, reason="not in an environment")

LEFT_OUT = {
    r"^make ": "makes environments, tests, or measures for an hour",
    r"^docker ": "needs Docker",
    r"^git ": "pushes to the Hub",
    r"^vllm |serve run|pip install": "needs packages that are not in the lock",
    r"granite-speech-[34]": "downloads a checkpoint",
    r"-m benchmarks (speed|pages)": "ends with 1 where a machine misses a speed bar",
    r"WORDS|words20|--corpus old": "needs voices that are not in the lock, and trains for an hour",
}
SERVERS = re.compile(r"-m app\.api\b|\bapp\.py\b")
PORTS = ("8000", "7860")
START_S, COMMAND_S = 120.0, 900.0
CLIP = "string_three_one_eight.flac"
SLOW = ("README.md", "docs/bulk.md", "docs/deploy.md", "docs/evaluate.md")
LONG = ("docs/finetune.md", "docs/performance.md")


class Visitor:
    """A person with a fresh clone who types what a document prints."""

    def __init__(self, clone: Path, home: Path) -> None:
        self.clone = clone
        self.ports = {port: str(free_port()) for port in PORTS}
        self.servers: dict[str, subprocess.Popen[bytes]] = {}
        self.log: IO[str] = (home / "servers.log").open("w")
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        self.environment = {**kept, "HOME": str(home), "HF_HUB_OFFLINE": "1"}

    def follow(self, document: str) -> list[str]:
        """Run the blocks of a document; the commands that ran."""
        ran = []
        for language, text in blocks(ROOT / document):
            for port, free in self.ports.items():
                text = re.sub(rf"\b{port}\b", free, text)
            page = self.ports["7860"]
            if f":{page}" in text and page not in self.servers:
                self.serve(f".venv/bin/python app.py --port {page}")
            if language == "python":
                ran.append(self.python(text))
            elif language == "sh":
                ran += self.shell(text)
        return ran

    def shell(self, text: str) -> list[str]:
        """Run the lines of a block in one shell, servers beside it."""
        lines = []
        for line in text.replace("\\\n", " ").splitlines():
            if any(re.search(pattern, line) for pattern in LEFT_OUT):
                continue
            if SERVERS.search(line):
                self.serve(re.sub(r"\s*(&\s*)?(#.*)?$", "", line))
            elif line.strip():
                lines.append(line)
        # What stands for a run is known once the lines before it have ended.
        parts = [[line] for line in lines] if re.search(r"\bID\b", text) else [lines]
        for part in filter(None, parts):
            self.run(["bash", "-euo", "pipefail", "-x", "-c", self.named("\n".join(part))])
        return lines

    def named(self, command: str) -> str:
        """Put a recorded run in place of ID: the newest, compiled where its code is read."""
        if not re.search(r"\bID\b", command):
            return command
        kind = "*-compile-*" if "profiling code" in command else "*"
        runs = (self.clone / "runs").glob(kind)
        newest = max(runs, key=lambda one: one.stat().st_mtime)
        return re.sub(r"\bID\b", newest.name, command)

    def python(self, text: str) -> str:
        """Run a block of Python."""
        self.run([".venv/bin/python", "-c", text])
        return text

    def run(self, command: list[str]) -> None:
        """Run a command; it must end well."""
        done = subprocess.run(
            command,
            cwd=self.clone,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
        )
        assert done.returncode == 0, f"{command[-1]}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        assert "Traceback (most recent call last)" not in done.stderr, done.stderr[-4000:]

    def serve(self, command: str) -> None:
        """Start a server, in place of one on its port, and wait until it listens."""
        port = next(port for port in self.ports.values() if port in command)
        self.end(port)
        server = subprocess.Popen(
            ["bash", "-c", f"exec env {command}"],
            cwd=self.clone,
            env=self.environment,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )
        self.servers[port] = server
        deadline = time.monotonic() + START_S
        while not listens(int(port)):
            assert server.poll() is None, f"{command} ended: {Path(self.log.name).read_text()}"
            assert time.monotonic() < deadline, f"{command} does not listen"
            time.sleep(0.2)

    def end(self, port: str) -> None:
        """End the server on a port, if there is one."""
        if server := self.servers.pop(port, None):
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(30)

    def leave(self) -> None:
        """End all servers."""
        for port in list(self.servers):
            self.end(port)
        self.log.close()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def write_material(clone: Path) -> None:
    """Put down what the documents call the reader's own: recordings, manifests, a snapshot."""
    (clone / "talks").mkdir()
    samples, rate = soundfile.read(EXAMPLES / CLIP, dtype="float32")
    (clone / "talk.m4a").write_bytes(encode("ipod", "aac", rate, samples))
    (clone / "talks" / "a.mp3").write_bytes(encode("mp3", "mp3", rate, samples))
    shutil.copyfile(EXAMPLES / CLIP, clone / "clip.wav")
    about = {"language": "en", "speaker": "one", "licence": "CC0-1.0"}
    rows = [
        {"audio": f"assets/examples/{name}", "text": text, **about}
        for name, text in transcripts().items()
    ]
    for name in ("train.jsonl", "test.jsonl"):
        (clone / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (clone / "clips.jsonl").write_text(json.dumps({"audio_filepath": "clip.wav"}) + "\n")
    (clone / "more.csv").write_text("audio_filepath\nclip.wav\n")
    (clone / "gpu.pickle").write_bytes(pickle.dumps(snapshot()))


def copy_checkout(clone: Path) -> None:
    """Copy the files under version control as they are now; ``.venv`` is the tests' own."""
    for name in tracked_files():
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, clone / name)
    (clone / ".venv").symlink_to(sys.prefix, target_is_directory=True)


@pytest.fixture
def visitor(tmp_path: Path) -> Iterator[Visitor]:
    clone, home = tmp_path / "granite-speech-lab", tmp_path / "home"
    home.mkdir()
    copy_checkout(clone)
    write_material(clone)
    found = Visitor(clone, home)
    try:
        yield found
    finally:
        found.leave()


@pytest.mark.parametrize(
    "document",
    [
        *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW),
        *(pytest.param(name, marks=pytest.mark.long) for name in LONG),
    ],
)
def test_what_a_document_prints_runs_on_a_fresh_clone(visitor: Visitor, document: str) -> None:
    assert visitor.follow(document)


def test_every_document_with_commands_is_followed() -> None:
    printed = {
        str(file.relative_to(ROOT))
        for file in DOCS
        if any(language in ("sh", "python") for language, _ in blocks(file))
    }
    assert printed == {*SLOW, *LONG}
