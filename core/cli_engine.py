"""Engine of a command line: compiled once its package is there, eager until then.

In: a loaded model and a command's arguments. Out: for each file the options it runs with, and a
word about it where these are not what was asked for.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from core import Lab
from core.background_build import BackgroundBuilds, PackageRequest, needs_batches
from core.builder_process import BackgroundBuild
from core.errors import UserError
from core.transcription.long_form import seconds_of
from core.transcription.options import OptionFields, TranscribeOptions

POLL_S = 1.0  # how often a wait says how far it is


class EngineChoice:
    """Chooses the engine of each file.

    Args:
        lab: the model.
        parsed: the command's arguments.
        options: of the requests, as asked for.
    """

    def __init__(self, lab: Lab, parsed: argparse.Namespace, options: OptionFields) -> None:
        self.lab, self._options, self._wait = lab, options, bool(parsed.wait)
        self._builds = BackgroundBuilds()
        adapters = () if parsed.adapter is None else (parsed.adapter,)
        self._request = PackageRequest.of(
            lab, parsed.model, revision=parsed.revision, adapters=adapters
        )

    def options(self, files: Sequence[str]) -> tuple[OptionFields, BackgroundBuild | None]:
        """Return the options that ``files`` run with now.

        Args:
            files: run as one batch.

        Returns:
            The options, and the build that made them eager.
        """
        build = self._missing(files)
        if build is None:
            return self._options, None
        return {**self._options, "engine": "eager"}, build

    def close(self) -> None:
        """End what compiles in the background."""
        self._builds.close()

    def _missing(self, files: Sequence[str]) -> BackgroundBuild | None:
        if self._options["engine"] != "compile":
            return None
        while True:
            build = self._builds.missing(
                self.lab,
                self._request,
                batches=needs_batches(
                    self.lab, TranscribeOptions(**self._options), [_seconds(f) for f in files]
                ),
                nice=not self._wait,
            )
            if build is None or not self._wait or build.status.failure is not None:
                return build
            said = ""
            while not build.wait(POLL_S):
                if build.status.text != said or sys.stderr.isatty():
                    said, end = build.status.text, "\r" if sys.stderr.isatty() else "\n"
                    print(f"{build.status}", end=end, file=sys.stderr, flush=True)


def _seconds(file: str | Path) -> float | None:
    """Return a recording's length; what is wrong with the file is said when it is read."""
    try:
        return seconds_of(file)
    except (UserError, OSError):
        return 0.0
