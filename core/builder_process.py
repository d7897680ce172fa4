"""The process that compiles while this one answers: how far it is, and its end.

In: a command that writes JSON lines (``python -m core package --background``). Out: a
:class:`BuildStatus` at any moment. The process ends with this one, however that ends.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Event, Thread

from core.engine.fingerprint import ROOT

logger = logging.getLogger(__name__)

RATHER = "this answer is eager"


@dataclass(frozen=True)
class BuildStatus:
    """Progress of a build. left_s: seconds left, None where unknown; failure: why there is none."""

    done: int = 0
    total: int = 0
    left_s: float | None = None
    failure: str | None = None
    is_over: bool = False

    def __str__(self) -> str:
        """Say it in a line: "compiling 3 of 6, about 20 s left"."""
        left = "" if self.left_s is None else f", about {max(1, round(self.left_s))} s left"
        return f"{self.text}{left}"

    @property
    def text(self) -> str:
        """Say it without the time left."""
        if self.failure is not None:
            return f"not compiled: {self.failure}"
        if self.is_over:
            return "the next answer is compiled"
        if not self.total:
            return "compiling begins"
        return f"compiling {min(self.done + 1, self.total)} of {self.total}"


class BackgroundBuild:
    """One builder. command: starts it; expected: graph -> seconds that it took another time."""

    def __init__(self, command: Sequence[str], expected: Mapping[str, float] | None = None) -> None:
        self._expected = dict(expected or {})
        self._graphs: tuple[str, ...] = ()
        self._found: frozenset[str] = frozenset()  # made by a builder before this one
        self._seconds: dict[str, float] = {}
        self._builders = 1
        self._since = time.monotonic()
        self._failure: str | None = None
        self._told = False
        self._over = Event()
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
            "TORCHINDUCTOR_COMPILE_THREADS": "1",
            "HF_HUB_OFFLINE": "1",  # the model is here: it is loaded
        }
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            # Ctrl-C at a terminal is for this process. In its session: where this one is killed,
            # the system lets a group that stands still go on, and so it can end.
            process_group=0,
        )
        self._said: list[str] = []
        self._errors = Thread(target=self._read_errors, daemon=True)
        self._errors.start()
        Thread(target=self._read, daemon=True).start()

    @property
    def status(self) -> BuildStatus:
        """Return how far it is."""
        left = None if self._over.is_set() else self._left_s()
        return BuildStatus(
            len(self._seconds), len(self._graphs), left, self._failure, self._over.is_set()
        )

    def note(self) -> str:
        """Say beside an answer why it is eager; the reason of a failure is said once."""
        status = self.status
        if status.failure is not None and self._told:
            return f"compiling failed; {RATHER}"
        self._told = status.failure is not None
        return f"{status}; {RATHER}"

    def fail(self, reason: str) -> None:
        """Give it up: what it made is of no use."""
        if self._failure is None:
            self._failure = reason
            logger.warning("compiling in the background failed, eager goes on: %s", reason)

    def wait(self, timeout_s: float) -> bool:
        """Wait until it is over, at most so long; returns whether it is."""
        return self._over.wait(timeout_s)

    def pause(self, *, paused: bool) -> None:
        """Stop it where it is, or let it go on: what is timed shall not share its processor."""
        if hasattr(signal, "SIGSTOP"):
            self._signal(signal.SIGSTOP if paused else signal.SIGCONT)

    def close(self) -> None:
        """End it; the graphs it has finished are kept."""
        self._failure = self._failure or "it was stopped"
        if self._process.stdin is not None:
            self._process.stdin.close()
        self.pause(paused=False)
        self._signal(signal.SIGTERM)

    def _signal(self, number: int) -> None:
        if self._process.poll() is None:
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, number)
            else:
                self._process.send_signal(number)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                found = json.loads(line)
                graphs, seconds = tuple(found["graphs"]), dict(found["seconds"])
                self._builders = int(found.get("builders", 1))
            except (ValueError, TypeError, KeyError):
                continue  # a library's own words
            if not self._graphs:
                self._found = frozenset(seconds)
            self._graphs, self._seconds, self._since = graphs, seconds, time.monotonic()
        status = self._process.wait()
        self._errors.join()
        if status != 0 and self._failure is None:
            last = self._said[-1] if self._said else f"the builder ended with status {status}"
            self.fail(last.removeprefix("error: "))
        self._over.set()

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if line.strip():
                self._said = [*self._said[-20:], line.strip()]

    def _left_s(self) -> float | None:
        """Estimate the seconds left from what the graphs took another time, at today's pace."""
        made = {name: s for name, s in self._seconds.items() if name not in self._found}
        ahead = [name for name in self._graphs if name not in self._seconds]
        known = self._expected or made
        if not known or not ahead:
            return None
        usual = sum(known.values()) / len(known)
        usually = sum(known.get(name, usual) for name in made)
        pace = sum(made.values()) / usually if usually else 1.0
        needed = pace * sum(known.get(name, usual) for name in ahead) / self._builders
        return max(0.0, needed - (time.monotonic() - self._since))
