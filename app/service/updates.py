"""Updates of a running request: the core's events, and a few of the service's own."""

from __future__ import annotations

from dataclasses import dataclass

from app.service.model_summary import ModelSummary
from core import Transcript
from core.transcription.options import Event


@dataclass(frozen=True)
class RequestResult:
    """The last update. compile_s and load_s: what this request spent on compiling and loading."""

    transcript: Transcript
    compile_s: float
    load_s: float
    summary: ModelSummary


@dataclass(frozen=True)
class CancelledBeforeStart:
    """The only update of a request that was stopped while it waited."""


@dataclass(frozen=True)
class TranscriptionProgress:
    """How far a long recording has come, and what that took. total_s is None where unknown."""

    done_s: float
    total_s: float | None
    spent_s: float

    @property
    def left_s(self) -> float | None:
        """Estimate the seconds left at this pace."""
        if self.total_s is None or self.done_s <= 0:
            return None
        return max(0.0, self.total_s - self.done_s) / self.done_s * self.spent_s


Update = Event | RequestResult | CancelledBeforeStart | TranscriptionProgress
