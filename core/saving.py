"""Files that are whole or not there: whatever is kept on disk and read again.

In: bytes. Out: a file, written beside its place, flushed to the disk and then moved: a killed
process or a full disk leaves the last whole one.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from core.errors import UserError


class SaveError(UserError):
    """A file cannot be written; what was there before is still there."""


def write_whole(file: Path, data: bytes | memoryview, then: str = "start again") -> None:
    """Write a file whole, or leave what was there.

    Args:
        file: its place, in a folder that exists.
        data: all of it.
        then: what to do once there is room.

    Raises:
        SaveError: no space, no permission.
    """
    new = file.with_name(f".{file.name}.new")
    try:
        with new.open("wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        new.replace(file)
    except OSError as error:
        with contextlib.suppress(OSError):
            new.unlink()
        raise SaveError(
            f"{file} could not be written ({error.strerror}); what was saved before is whole: "
            f"make room, then {then}"
        ) from error
    with contextlib.suppress(OSError):  # a folder cannot be opened everywhere
        folder = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
