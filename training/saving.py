"""Files that are whole or not there: what every stage and every fine-tuning run keeps on disk.

In: bytes, or what ``torch.save`` takes. Out: a file, written beside its place, flushed to the disk
and then moved: a killed process or a full disk leaves the last whole one.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

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


def write_state(file: Path, state: Any, then: str = "start again") -> None:
    """Keep ``state`` (tensors, numbers, texts, and lists and dicts of them); errors as above."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_whole(file, buffer.getbuffer(), then)


def read_state(file: Path, needs: Sequence[str]) -> Mapping[str, Any]:
    """Read what ``write_state`` kept.

    Returns:
        The state.

    Raises:
        UserError: it cannot be read, or lacks one of ``needs``.
    """
    try:
        state = torch.load(file, weights_only=True, map_location="cpu")
    except Exception as error:  # a damaged file raises anything
        raise UserError(
            f"{file} cannot be read ({type(error).__name__}); expected what training kept: "
            "delete it to begin anew"
        ) from error
    if lacking := [name for name in needs if name not in state]:
        raise UserError(
            f"{file} holds no {' and no '.join(lacking)}, so that its stage cannot go on from it; "
            "expected what that stage kept (what `grow-encoder` wrote goes on with joint)"
        )
    return state
