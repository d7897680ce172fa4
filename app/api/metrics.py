"""The metrics of a server, in Prometheus' text format.

In: numbers as they happen, from any thread. Out: text of the exposition format 0.0.4
(https://prometheus.io/docs/instrumenting/exposition_formats/). Times in seconds, sizes in bytes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable
from threading import Lock

from app.service.batching.queue import BatchingQueue, BatchReport
from core.memory import STATUS

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
CLIPS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)

Labels = tuple[tuple[str, str], ...]


class Counter:
    """A number that only grows, for each set of labels."""

    def __init__(self, name: str, help_text: str) -> None:
        self.name, self._help = name, help_text
        self._values: defaultdict[Labels, float] = defaultdict(float)
        self._lock = Lock()

    def add(self, amount: float = 1.0, **labels: str) -> None:
        """Count ``amount`` more."""
        with self._lock:
            self._values[tuple(labels.items())] += amount

    def lines(self) -> list[str]:
        """Return its part of the page."""
        with self._lock:
            values = [line(self.name, labels, value) for labels, value in self._values.items()]
        return [*head(self.name, "counter", self._help), *values]


class Histogram:
    """A Prometheus histogram: cumulative counts by upper bound, for each set of labels."""

    def __init__(self, name: str, help_text: str, bounds: tuple[float, ...]) -> None:
        self.name, self._help, self._bounds = name, help_text, bounds
        self._counts: dict[Labels, list[int]] = {}
        self._sums: defaultdict[Labels, float] = defaultdict(float)
        self._lock = Lock()

    def observe(self, value: float, **labels: str) -> None:
        """Count one value."""
        key = tuple(labels.items())
        with self._lock:
            counts = self._counts.setdefault(key, [0] * (len(self._bounds) + 1))
            counts[bisect_left(self._bounds, value)] += 1
            self._sums[key] += value

    def lines(self) -> list[str]:
        """Return its part of the page."""
        found = head(self.name, "histogram", self._help)
        with self._lock:
            for labels, counts in self._counts.items():
                total = 0
                for bound, count in zip([*map(str, self._bounds), "+Inf"], counts, strict=True):
                    total += count
                    found.append(line(f"{self.name}_bucket", (*labels, ("le", bound)), total))
                found.append(line(f"{self.name}_sum", labels, self._sums[labels]))
                found.append(line(f"{self.name}_count", labels, total))
        return found


class Metrics:
    """Everything that ``/metrics`` shows."""

    def __init__(self) -> None:
        self.requests = Counter("gsl_requests_total", "Answered requests by route and status.")
        self._audio = Counter("gsl_audio_seconds_total", "Seconds of audio that were transcribed.")
        self._phases = Histogram("gsl_phase_seconds", "Time of a batch in each phase.", SECONDS)
        self._waits = Histogram("gsl_queue_wait_seconds", "Time of a clip in the queue.", SECONDS)
        self._batches = Histogram("gsl_batch_clips", "Clips that ran as one batch.", CLIPS)

    def batch(self, report: BatchReport) -> None:
        """Count a batch that is over."""
        self._batches.observe(len(report.waits_s))
        for wait_s in report.waits_s:
            self._waits.observe(wait_s)
        self._audio.add(sum(done.audio_s for done in report.transcripts))
        if report.transcripts:
            for phase in report.transcripts[0].phases:
                self._phases.observe(phase.ms / 1000, phase=phase.name)

    def page(self, queue: BatchingQueue, ready: bool) -> str:
        """Return the text that Prometheus reads."""
        gauges: tuple[tuple[str, str, Callable[[], float]], ...] = (
            ("gsl_queue_length", "Clips that wait for the model.", lambda: queue.waiting),
            ("gsl_running_clips", "Clips the model works on.", lambda: queue.running),
            ("gsl_ready", "1 where the start model is in memory.", lambda: float(ready)),
            (
                "gsl_second_process_loading",
                "1 while the second process of batches loads.",
                lambda: float(queue.awaits_second),
            ),
            ("process_resident_memory_bytes", "Resident memory.", resident_bytes),
        )
        parts = (self.requests, self._audio, self._phases, self._waits, self._batches)
        found = [text for part in parts for text in part.lines()]
        for name, help_text, value in gauges:
            found += [*head(name, "gauge", help_text), line(name, (), value())]
        return "\n".join(found) + "\n"


def head(name: str, kind: str, help_text: str) -> list[str]:
    """Return the lines that introduce a metric."""
    return [f"# HELP {name} {help_text}", f"# TYPE {name} {kind}"]


def line(name: str, labels: Labels, value: float) -> str:
    """Return one sample."""
    shown = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels)
    return f"{name}{{{shown}}} {value:.17g}" if shown else f"{name} {value:.17g}"


def resident_bytes() -> int:
    """Return the resident memory of this process; 0 where the system does not say."""
    if STATUS.is_file():
        for text in STATUS.read_text().splitlines():
            if text.startswith("VmRSS:"):
                return int(text.split()[1]) * 1024
    return 0


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
