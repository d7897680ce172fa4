"""Stand-ins for what is behind the page: a model that says its recording's name, and a transcript.

In: nothing. Out: :data:`TRANSCRIPT`, :class:`StubLab`, :func:`service_of`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

from app.service.service import TranscriptionService
from app.service.settings import Settings
from app.service.updates import RequestResult, Update
from core.checkpoint.catalog import CATALOG
from core.text.transcript import PhaseTime, Transcript, Word
from core.transcription.options import Finished, PartialText

TRANSCRIPT = Transcript(
    file="/secret/folder/clip.wav",
    text="three one eight",
    segments=(),
    words=(Word("three", None, None, 0.99), Word("one", None, None, 0.41)),
    language=None,
    model="tiny",
    engine="eager",
    lora=True,
    decoding="greedy",
    token_ids=(1, 2, 3),
    audio_s=3.0,
    phases=(PhaseTime("encoder", 60.0), PhaseTime("decode", 30.0)),
    end_to_end_ms=100.0,
    rtf=0.033,
    time_to_first_token_ms=70.0,
    new_tokens=3,
    new_tokens_per_s=66.0,
    peak_memory_bytes=3 * 2**20,
    draft=None,
    warnings=(),
)
SETTINGS = Settings(model="tiny")


class StubLab:
    """Says the name of its recording, a letter at a time, and waits at ``gate`` before the last."""

    def __init__(self, name: str, gate: Event | None = None) -> None:
        self.model_info = replace(CATALOG["tiny"], name=name)
        self.compile_ledger = SimpleNamespace(seconds={})
        self.files = SimpleNamespace(num_bytes=10)
        self.device, self.dtype, self.has_adapter = "cpu", "torch.float32", True
        self.gate, self.busy, self.begun = gate, False, Event()

    def stream(self, path: str, *, cancelled: Callable[[], bool], **_: Any) -> Iterator[Any]:
        assert not self.busy, "two requests at once"
        self.busy = True
        text = ""
        try:
            for letter in Path(path).name:
                text += letter
                yield PartialText(0, text, len(text))
                self.begun.set()
                while self.gate is not None and not self.gate.wait(0.01) and not cancelled():
                    pass
                if cancelled():
                    break
            yield Finished(0, replace(TRANSCRIPT, file=path, text=text, stopped=cancelled()))
        finally:
            self.busy = False

    def stream_chat(self, message: str, *, cancelled: Callable[[], bool]) -> Iterator[str]:
        yield from message.split()


def service_of(loaded: list[str], gate: Event | None = None, **more: Any) -> TranscriptionService:
    """A service whose models are stubs; ``loaded`` gets the name of each one loaded."""

    def load(name: str, **_: Any) -> StubLab:
        loaded.append(name)
        return StubLab(name, gate)

    return TranscriptionService(loader=load, **more)


def last(updates: Iterator[Update]) -> RequestResult:
    """The outcome of a stream."""
    *_, end = updates
    assert isinstance(end, RequestResult)
    return end
