"""``run.json``: read, or refused in a line; :mod:`profiling.runs.run_record` says what it holds.

In: a file or a decoded object. Out: the run as a dict, or one :class:`RunError`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.checkpoint.schema import shorten
from core.errors import UserError
from core.plain_json import parse_json
from profiling.runs.run_record import check_record

SCHEMA_VERSION = 1
RUN_FILE = "run.json"
MAX_RUN_BYTES = 20_000_000


class RunError(UserError):
    """A run that cannot be used: what came, what was expected, what to do, in one line."""


def checked_id(text: str) -> str:
    """Return ``text`` if it can be an id.

    Raises:
        RunError: not a plain file name of letters, digits, dots, dashes and underscores.
    """
    reserved = text.split(".")[0].upper() in {"CON", "PRN", "AUX", "NUL", "COM1", "LPT1"}
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", text) or text[-1] == "." or reserved:
        raise RunError(
            f"{text!r} cannot be a run's id; expected up to 80 letters, digits, '.', '-' or '_', "
            "beginning with a letter or digit"
        )
    return text


def checked_run(run: Any) -> dict[str, Any]:
    """Return ``run`` if it has what every ``run.json`` has.

    Raises:
        RunError: not an object, another version, or a key that is missing or does not fit.
    """
    if not isinstance(run, Mapping):
        raise RunError(f"{RUN_FILE} holds {type(run).__name__}; expected an object")
    if run.get("schema_version") != SCHEMA_VERSION:
        raise RunError(
            f"{RUN_FILE} has schema_version {shorten(run.get('schema_version'))}; expected "
            f"{SCHEMA_VERSION}: measure again, or use the version that wrote it"
        )
    check_record(run, RUN_FILE, RunError)
    return dict(run)


def read_run(path: Path) -> dict[str, Any]:
    """Return the run in a file.

    Raises:
        RunError: unreadable, not JSON, or not a run.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_RUN_BYTES + 1)
    except OSError as error:
        raise RunError(f"{RUN_FILE} cannot be read ({error.strerror})") from None
    if len(text) > MAX_RUN_BYTES:
        raise RunError(f"{RUN_FILE} is larger than {MAX_RUN_BYTES / 1e6:.0f} MB")
    try:
        run = parse_json(text)
    except ValueError as error:
        raise RunError(f"{RUN_FILE} is not JSON ({error})") from None
    return checked_run(run)
