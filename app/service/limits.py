"""Limits of the app: which models, how long a recording, which engine.

In: a request. Out: nothing, or a ``UserError`` that says what is taken instead.
"""

from __future__ import annotations

from dataclasses import dataclass

from app.service.deployment import Deployment
from app.service.model_cache import plain_name
from app.service.seekable_audio import original_path
from app.service.settings import Settings
from core.audio.decode import measure_seconds
from core.audio.waveform import RecordingTooLong
from core.checkpoint.catalog import CATALOG
from core.errors import UserError, check_types
from core.transcription.options import ENGINES, TranscribeOptions

LONGEST_NAME, SHOWN = 4_096, 80  # letters of a model's name: a path's; and of one in a message


def limit_text(seconds: float) -> str:
    """Say a limit in words: whole minutes where it is some, else seconds."""
    return f"{seconds / 60:g} minutes" if seconds >= 120 and not seconds % 60 else f"{seconds:g} s"


@dataclass(frozen=True)
class Limits:
    """Models, engines and lengths that are taken.

    only: names of the models, None for any. no_compile: why there is no compiled engine, None where
    there is. max_audio_s: the longest recording, None for any length.
    """

    only: frozenset[str] | None = None
    no_compile: str | None = None
    max_audio_s: float | None = None

    @classmethod
    def of(cls, deployment: Deployment) -> Limits:
        """Return the limits of a deployment: strangers get the catalog and the start model.

        On ZeroGPU only the latter: a model must be loaded before the app is launched.

        Returns:
            The limits.
        """
        first = plain_name(deployment.model)
        known = frozenset([first] if deployment.zero_gpu else [*CATALOG, first])
        only = known if deployment.public or deployment.zero_gpu else None
        return cls(only, deployment.no_compile, deployment.max_audio_s)

    @property
    def engines(self) -> tuple[str, ...]:
        """Return the engines there are."""
        return tuple(e for e in ENGINES if e != "compile" or self.no_compile is None)

    def takes(self, name: str) -> bool:
        """Return whether a model of this name is run here."""
        return self.only is None or plain_name(name) in self.only

    def check_model(self, name: str) -> None:
        """Check the name of a model.

        Raises:
            UserError: no name, or a model that is not run here.
        """
        if not isinstance(name, str) or not name.strip():
            raise UserError("no model was chosen; choose one, or type a repository id or a folder")
        if len(name) > LONGEST_NAME:
            raise UserError(
                f"the model's name has {len(name):,} letters; expected at most {LONGEST_NAME:,}"
            )
        if not self.takes(name):
            raise UserError(
                f"{name.strip()[:SHOWN]!r} is not run on this public page; choose one from the "
                "list, or run the app on your own machine, which takes any repository id or folder"
            )

    def check_adapters(self) -> None:
        """Check that adapters are taken here.

        Raises:
            UserError: they are not.
        """
        if self.only is not None:
            raise UserError(
                "adapters are not taken on this public page; run the app on your own machine, "
                "which takes any folder or repository id"
            )

    def check(self, settings: Settings) -> None:
        """Check a request's settings.

        Raises:
            UserError: a model or an engine that is not run here, or an unknown option.
        """
        check_types(settings)
        self.check_model(settings.model)
        if settings.adapter:
            self.check_adapters()
        if settings.engine == "compile" and self.no_compile is not None:
            raise UserError(self.no_compile)
        TranscribeOptions(**settings.options())

    def check_recording(self, recording: str | None) -> str:
        """Check that there is a recording and measure that it is not too long.

        Returns:
            Path of the file that was given.

        Raises:
            UserError: it is missing, unreadable or too long.
        """
        if not recording:
            raise UserError("no recording yet; record something, or choose a file or an example")
        recording = original_path(recording)
        if self.max_audio_s is not None:
            try:
                measure_seconds(recording, max_seconds=self.max_audio_s)
            except RecordingTooLong as error:
                raise UserError(
                    f"the recording is too long: this page takes up to "
                    f"{limit_text(self.max_audio_s)}; cut it, or run the app on your own machine"
                ) from error
        return recording
