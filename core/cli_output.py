"""Where the command line's results go: a folder, or stdout, each as soon as it is finished.

In: transcripts one by one. Out: files written whole or not at all, or text on stdout; several JSON
objects are one array, closed whatever happens. Names and letters that the terminal's encoding lacks
are escaped.
"""

from __future__ import annotations

import codecs
import io
import json
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from textwrap import indent
from types import TracebackType

from core.errors import UserError
from core.text.export import EXPORTERS
from core.text.output_names import printable
from core.text.transcript import Transcript


class ResultWriter:
    """Writes transcripts in one format.

    Args:
        folder: made if it is not there; None for stdout.
        form: a key of ``EXPORTERS``.
        as_array: several JSON objects follow each other on stdout.

    Raises:
        UserError: the folder cannot be used.
    """

    def __init__(self, folder: Path | None, form: str, *, as_array: bool) -> None:
        """Try the folder, before any work is done for it."""
        self._folder, self._form = folder, form
        self._as_array = as_array and form == "json" and folder is None
        self._is_open = False
        if folder is None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise UserError(
                f"{folder}: results cannot be written there ({error.strerror}); expected a folder "
                "that can be written to"
            ) from error

    def __enter__(self) -> ResultWriter:
        """Begin."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the array, also of a run that was stopped."""
        if self._is_open:
            say("\n]\n")

    def write(self, name: str, transcript: Transcript) -> None:
        """Write a result, to the file ``name`` where there is a folder.

        Raises:
            UserError: the file cannot be written; its result is on stdout then.
            OSError: stdout cannot be written to.
        """
        if self._folder is not None:
            self._write_file(self._folder, f"{name}.{self._form}", transcript)
        elif self._as_array:
            opening = ",\n" if self._is_open else "[\n"
            self._is_open = True  # before it is written: Ctrl-C may come while a reader is slow
            say(opening + indent(_json(transcript), "  "))
        elif self._form == "json":
            say(_json(transcript) + "\n")
        else:
            say(EXPORTERS[self._form](transcript))

    def _write_file(self, folder: Path, name: str, transcript: Transcript) -> None:
        text = EXPORTERS[self._form](transcript)
        target, part = folder / name, folder / f".{os.getpid()}.part"
        try:
            part.write_text(text, encoding="utf-8", errors="backslashreplace")
            part.replace(target)
        except OSError as error:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            say(text)
            raise UserError(
                f"{target} cannot be written ({error.strerror}); the result is on stdout instead"
            ) from error
        say(f"{printable(str(target))}\n")


def say(text: str) -> None:
    """Write to stdout at once.

    Raises:
        OSError: it cannot be written to; a BrokenPipeError where its reader has gone.
    """
    sys.stdout.write(text)
    sys.stdout.flush()


def escape_what_cannot_be_printed() -> None:
    """Let stdout and stderr escape the letters that their encoding lacks, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def give_up_stdout() -> None:
    """Send what is still buffered nowhere: the interpreter would fail to write it at its end."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _json(transcript: Transcript) -> str:
    """Return the transcript's object; only JSON's own escapes where stdout is not UTF-8."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    plain = codecs.lookup(encoding).name != "utf-8"
    return json.dumps(transcript.to_dict(), ensure_ascii=plain, allow_nan=False, indent=2)
