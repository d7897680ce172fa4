"""The parent's side of a worker: start it, ask it, end it.

In: a system's name, a checkpoint's folder. Out: answers. Each worker compiles into a fresh cache
folder, so a cold start is cold.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.systems import SYSTEMS, Answer
from core.checkpoint.catalog import ASSETS
from core.engine.aot_load import ENVIRONMENT, OFF

ROOT = ASSETS.parent


class WorkerFailed(RuntimeError):
    """A system could not answer a request; the message says why, on one line."""


def run_command(command: list[str], *, threads: int) -> None:
    """Run a command of this project to its end.

    Raises:
        WorkerFailed: it did not end well; the message has its last line.
    """
    with tempfile.TemporaryDirectory(prefix="bench-cache-") as cache:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=_environment(threads, Path(cache)),
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise WorkerFailed(f"{' '.join(command[1:4])}: ended with {done.returncode} ({last})")


def _environment(threads: int, cache: Path, packages: Path | None = None) -> dict[str, str]:
    """A fresh compiler cache, and no graphs compiled ahead of time but those of ``packages``."""
    return {
        **os.environ,
        "TORCHINDUCTOR_CACHE_DIR": str(cache),
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        ENVIRONMENT: OFF if packages is None else str(packages.resolve()),
    }


class WorkerProcess:
    """A running worker. import_s and load_s: seconds before it could answer; a context manager.

    packages: where it finds graphs compiled ahead of time; None: it compiles what it needs.
    """

    def __init__(
        self, system: str, folder: Path, threads: int, *, packages: Path | None = None
    ) -> None:
        self.system = SYSTEMS[system]
        self._cache = tempfile.TemporaryDirectory(prefix="bench-cache-")
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", system, str(folder), str(threads)],
            cwd=ROOT,
            env=_environment(threads, Path(self._cache.name), packages),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        try:
            ready = self._read()
        except WorkerFailed:
            self.close()
            raise
        self.import_s, self.load_s = ready["import_s"], ready["load_s"]

    def ask(self, do: str, **arguments: Any) -> Answer:
        """Ask for one answer.

        Args:
            do: the name of a method of the runner.
            arguments: of it; paths go as text.

        Returns:
            The answer.

        Raises:
            WorkerFailed: the system could not do it, or its process died.
        """
        assert self._process.stdin is not None
        paths = {name: str(v) if isinstance(v, Path) else v for name, v in arguments.items()}
        try:
            self._process.stdin.write(json.dumps({"do": do, **paths}) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise WorkerFailed(
                f"{self.system.title}: its process ended ({self._last_words()})"
            ) from error
        return Answer.from_json(self._read())

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise WorkerFailed(f"{self.system.title}: its process ended ({self._last_words()})")
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            raise WorkerFailed(f"{self.system.title}: {found['error']}")
        return found

    def _last_words(self) -> str:
        self._process.wait()
        self._log.seek(0)
        return (self._log.read().strip().splitlines() or ["no message"])[-1]

    def close(self) -> None:
        """End the process and delete its caches."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()
        self._cache.cleanup()

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
