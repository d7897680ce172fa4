"""Updates of a running request: the core's events, and a few of the service's own."""

from __future__ import annotations

from dataclasses import dataclass

from app.service.model_summary import ModelSummary
from core import Transcript
from core.builder_process import BuildStatus
from core.transcription.options import Event


@dataclass(frozen=True)
class RequestResult:
    """The last update. compile_s and load_s: what this request spent on compiling and loading."""

    transcript: Transcript
    compile_s: float
    load_s: float
    summary: ModelSummary


@dataclass(frozen=True)
class EagerMeanwhile:
    """A request for compiled stages runs eagerly, because these are being built; says how far."""

    status: BuildStatus


@dataclass(frozen=True)
class CancelledBeforeStart:
    """The only update of a request that was stopped while it waited."""


@dataclass(frozen=True)
class TranscriptionProgress:
    """Progress of a long recording. total_s and left_s are None where unknown."""

    done_s: float
    total_s: float | None
    left_s: float | None


@dataclass(frozen=True)
class QueuePlace:
    """Where a request waits. ahead: how many come first; running: what is done now.

    left_s: seconds that the work now running still takes, None where unknown. between: that work
    lets this request go first at its next pause, which left_s is then the time to.
    """

    ahead: int
    running: str
    left_s: float | None
    between: bool = False


Update = (
    Event
    | RequestResult
    | CancelledBeforeStart
    | TranscriptionProgress
    | QueuePlace
    | EagerMeanwhile
)
