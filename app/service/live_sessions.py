"""Live sessions: who speaks, what is transcribed next, what the page shows.

In: blocks of a page's microphone. Out: a :class:`LiveUpdate` in answer to each. The model's thread
does one step at a time between other requests (:mod:`app.service.worker`); no page waits for it.
A session is known by a token that cannot be guessed, which only its page has. No Gradio.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.service.service import TranscriptionService
from app.service.settings import Settings
from app.service.updates import RequestResult
from app.service.user_errors import user_message
from app.service.worker import TRANSCRIPTION
from core import Lab
from core.errors import UserError
from core.transcription.streaming import Live, LiveState


@dataclass(frozen=True)
class LiveUpdate:
    """The state of the page. state: None until the model is loaded. error: what went wrong.

    stopping: the last block has come. full: the recording was ended for its length.
    """

    state: LiveState | None
    stopping: bool
    full: bool
    error: str | None

    @property
    def over(self) -> bool:
        """Return whether nothing more will change."""
        return self.error is not None or (self.state is not None and self.state.done)


@dataclass
class _Session:
    settings: Settings
    live: Live | None = None
    early: list[tuple[NDArray[Any], int]] = field(default_factory=list)  # before the model is there
    taken: int = 0  # samples that have come
    scheduled: bool = False
    stopping: bool = False
    full: bool = False
    gone: bool = False
    error: str | None = None
    lock: Lock = field(default_factory=Lock)

    def take(self, samples: NDArray[Any], rate: int, place: int | None) -> None:
        """Pass on what is new in a block; one too many ends the recording.

        place: of its first sample in the recording, None for the next.

        Raises:
            UserError: what came before it never did.
        """
        known = 0 if place is None else self.taken - place
        if known < 0:
            raise UserError("a piece of sound was lost on its way; record again")
        fresh = samples[known:]
        if len(fresh) and not self.stopping:
            self.taken += len(fresh)
            self._push(fresh, rate)

    def _push(self, samples: NDArray[Any], rate: int) -> None:
        if self.live is None:
            self.early.append((samples, rate))
            return
        try:
            self.live.push(samples, rate)
        except ValueError:
            self.full = self.stopping = True

    def opened(self, lab: Lab) -> Live:
        """Return the session's text, begun with the sound that came before its model."""
        with self.lock:
            if self.live is None:
                self.live = Live(reliable_s=lab.model_info.reliable_s)
                early, self.early = self.early, []
                for samples, rate in early:
                    self._push(samples, rate)
            if self.stopping:
                self.live.end()
            return self.live


class LiveSessions:
    """The live recordings of all pages."""

    def __init__(self, service: TranscriptionService) -> None:
        self._service = service
        self._sessions: dict[str, _Session] = {}  # by token
        self._tokens: dict[str, str] = {}  # by page
        self._lock = Lock()

    def start(self, page: str, settings: Settings) -> str:
        """Begin a recording with these settings; the page's one before it is forgotten.

        Returns:
            The token that :meth:`speak` and :meth:`result` want.
        """
        self.leave(page)
        summary = self._service.summary(settings.model or self._service.model)
        fitted = summary.fit(live_settings(settings))  # keywords may need another decoding
        token, session = secrets.token_urlsafe(24), _Session(fitted)
        with self._lock:
            self._tokens[page], self._sessions[token] = token, session
        self._schedule(session)  # loads the model, if need be, before the first words
        return token

    def speak(
        self,
        token: str,
        samples: NDArray[Any],
        rate: int,
        *,
        last: bool,
        place: int | None = None,
    ) -> LiveUpdate:
        """Take the next block of sound, which may be empty.

        A page that got no answer sends the same sound again, with more behind it.

        Args:
            token: of the recording.
            samples: [n] of the block.
            rate: in Hz.
            last: whether the recording ends with it.
            place: of its first sample in the recording; None for the next.

        Returns:
            What there is to show.

        Raises:
            UserError: an unknown token, or sound is missing.
        """
        session = self._session(token)
        with session.lock:
            session.take(samples, rate, place)
            session.stopping |= last
            if session.stopping and session.live is not None:
                session.live.end()
        if session.live is not None and session.live.is_due():
            self._schedule(session)
        state = session.live.state() if session.live else None
        return LiveUpdate(state, session.stopping, session.full, session.error)

    def leave(self, page: str) -> None:
        """Forget the page's recording."""
        with self._lock:
            session = self._sessions.pop(self._tokens.pop(page, ""), None)
        if session is not None:
            session.gone = True

    def result(self, token: str) -> tuple[RequestResult, NDArray[np.int16]] | None:
        """Return the transcript and its recording at 16 kHz; None where nothing was said.

        Returns:
            The result and samples [n].

        Raises:
            UserError: an unknown token.
        """
        session = self._session(token)
        transcript = None if session.live is None else session.live.transcript()
        if session.live is None or transcript is None or not transcript.text:
            return None
        summary = self._service.summary(session.settings.model)
        outcome = RequestResult(replace(transcript, file="live.wav"), 0.0, 0.0, summary)
        return outcome, session.live.recording()

    def _session(self, token: str) -> _Session:
        with self._lock:
            session = self._sessions.get(token)
        if session is None:
            raise UserError("this recording is not known here any more; record again")
        return session

    def _schedule(self, session: _Session) -> None:
        with session.lock:
            if session.scheduled or session.gone or session.error is not None:
                return
            session.scheduled = True
        ready = partial(self._service.models.is_ready, session.settings)
        self._service.worker.submit(lambda: self._step(session), TRANSCRIPTION, ready)

    def _step(self, session: _Session) -> None:
        """Do one piece of work on the model's thread; the next waits its turn behind others."""
        more = False
        try:
            lab = self._service.lab(session.settings)
            live = session.opened(lab)
            if live.is_due():
                live.step(lambda waveform: lab.transcribe(waveform, **session.settings.options()))
            more = live.is_due()
        except Exception as error:  # it belongs to the page that speaks, not to this thread
            session.error = user_message(error)
        with session.lock:
            session.scheduled = False
        if more:
            self._schedule(session)


def live_settings(settings: Settings) -> Settings:
    """Return the same request as live text can run it.

    The first compiled pass may build graphs for a minute, in which no text would appear; and a word
    is final when two passes agree, which sampling would prevent.

    Returns:
        The settings, eager and without sampling.
    """
    return replace(
        settings,
        engine="eager",
        task="transcribe" if settings.task == "instruct" else settings.task,
        decoding="speculative" if settings.decoding == "speculative" else "greedy",
        channels="mixed",
        prefix_text="",
    )
