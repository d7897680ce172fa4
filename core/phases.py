"""The names of the phases, and the marks that put them into traces and timings.

In: a phase name. Out: a context manager that times the phase with a monotonic clock and, when a
torch profiler is running, opens a range of the same name so that traces, tables and charts agree.

Ranges are opened *around* compiled callables: Inductor drops every range inside a compiled region.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

LOAD = "load"
DECODE_AUDIO = "decode_audio"
FEATURES = "features"
ENCODER = "encoder"
PROJECTOR = "projector"
PREFILL = "prefill"
DECODE = "decode"
DETOKENIZE = "detokenize"
DRAFT = "draft"
VERIFY = "verify"

# In the order they run; families add their own (see :func:`declare_phases`).
PHASES: list[str] = [
    LOAD,
    DECODE_AUDIO,
    FEATURES,
    ENCODER,
    PROJECTOR,
    DRAFT,
    PREFILL,
    VERIFY,
    DECODE,
    DETOKENIZE,
]


def declare_phases(names: Sequence[str]) -> None:
    """Add a family's phases to :data:`PHASES`, each behind the one that runs before it.

    Args:
        names: all phases of the family in their order; those that exist keep their place.
    """
    place = PHASES.index(ENCODER)
    for name in names:
        if name in PHASES:
            place = max(place, PHASES.index(name))
        else:
            place += 1
            PHASES.insert(place, name)


@dataclass(frozen=True)
class PhaseSpan:
    """One stay in a phase. start and duration in seconds, start from the clock's own."""

    name: str
    start: float
    duration: float


@dataclass
class PhaseClock:
    """When each phase of one request began and how long it took.

    Phases may be entered many times (one decode span per step). They never nest: opening a phase
    inside another is a programming error.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    spans: list[PhaseSpan] = field(default_factory=list)
    started_at: float = field(default_factory=time.perf_counter)
    _open: str | None = None

    @contextmanager
    def mark(self, name: str) -> Iterator[None]:
        """Time the body as phase ``name``, and name it so in a running trace."""
        assert name in PHASES, f"unknown phase {name!r}"
        assert self._open is None, f"phase {name!r} opened inside {self._open!r}"
        self._open = name
        self._wait()
        begin = time.perf_counter()
        try:
            with torch.autograd.profiler.record_function(name):
                yield
                self._wait()
        finally:
            spent = time.perf_counter() - begin
            self.spans.append(PhaseSpan(name, begin - self.started_at, spent))
            self._open = None

    def elapsed(self) -> float:
        """Seconds since the clock was made."""
        return time.perf_counter() - self.started_at

    def seconds(self, name: str) -> float:
        """Seconds spent in phase ``name`` so far."""
        return sum(span.duration for span in self.spans if span.name == name)

    def milliseconds(self) -> list[tuple[str, float]]:
        """(phase, milliseconds) in the order the phases first began."""
        names = dict.fromkeys(span.name for span in self.spans)
        return [(name, 1000.0 * self.seconds(name)) for name in names]

    def _wait(self) -> None:
        # A GPU runs behind the host: without this the time lands in whichever phase waits next.
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
