"""Safetensors and JSON settings of a checkpoint or an adapter, opened or refused in one line.

In: a path. Out: a handle on tensors, or a dictionary.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from core.errors import UserError


class CheckpointError(UserError):
    """A checkpoint that does not fit; the message names tensors and what was expected."""


def open_safetensors(file: Path) -> Any:
    """A handle on ``file``, memory-mapped; a context manager.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{file.name} cannot be read as safetensors ({error}); expected a complete download: "
            "delete the file and load again"
        ) from error


def read_settings(file: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        CheckpointError: it is none.
    """
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{file.name}: not valid JSON ({error}); load it again") from error
    if not isinstance(raw, dict):
        raise CheckpointError(f"{file.name}: not a JSON object; load it again")
    return raw
