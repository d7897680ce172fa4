"""Safetensors and JSON settings of a checkpoint or an adapter, opened or refused in one line.

In: a path. Out: a handle on tensors, or a dictionary.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from core.errors import UserError
from core.plain_json import parse_json

MAX_JSON_BYTES = 4 * 2**20  # forty times the index of the largest checkpoint
ONE_THREAD = 2**20  # values; fewer are read by NumPy, for torch would wake its threads each time
_POINTER = b"version https://git-lfs.github.com/spec/"


class CheckpointError(UserError):
    """A checkpoint that does not fit; the message names tensors and what was expected."""


def refuse_pointer(file: Path) -> None:
    """Refuse what Git leaves in place of a large file where Git LFS is not installed.

    Raises:
        CheckpointError: ``file`` is such a pointer.
    """
    with file.open("rb") as opened:
        if opened.read(len(_POINTER)) == _POINTER:
            raise CheckpointError(
                f"{file} is a Git LFS pointer, not the file itself; run 'git lfs pull' in its "
                "folder, or download it from the Hub"
            )


def open_safetensors(file: Path) -> Any:
    """Open ``file`` memory-mapped.

    Returns:
        A handle, which is a context manager.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        if file.is_file():
            refuse_pointer(file)
        raise CheckpointError(
            f"{file.name} cannot be read as safetensors ({error}); expected a complete download: "
            "delete the file and load again"
        ) from error


def read_settings(file: Path) -> dict[str, Any]:
    """Read a JSON object.

    Returns:
        The object.

    Raises:
        CheckpointError: it is none, or too large or too deeply nested to be one of a checkpoint's.
    """
    size = file.stat().st_size
    if size > MAX_JSON_BYTES:
        raise CheckpointError(
            f"{file.name} has {size} bytes; expected at most {MAX_JSON_BYTES}: load it again"
        )
    refuse_pointer(file)
    try:
        raw = parse_json(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{file.name}: not valid JSON ({error}); load it again") from error
    if not isinstance(raw, dict):
        kind = type(raw).__name__
        raise CheckpointError(f"{file.name}: not a JSON object but a {kind}; load it again")
    return raw


def refuse_non_finite(tensors: dict[str, Tensor], source: str) -> None:
    """Refuse NaN and infinity in ``tensors``, with one synchronisation for all of them.

    Raises:
        CheckpointError: the first tensor that holds one.
    """
    names = [key for key, value in tensors.items() if value.is_floating_point() and value.numel()]
    if not names:
        return
    extremes = torch.stack([part for key in names for part in _extremes(tensors[key])])
    finite = extremes.isfinite().view(-1, 2).all(dim=1).tolist()
    for key, fine in zip(names, finite, strict=True):
        if not fine:
            raise CheckpointError(
                f"{source}: tensor {key!r} holds NaN or infinity; expected finite weights: "
                "download it again or ask its author"
            )


def _extremes(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the least and the largest value in float32, NaN if there is any."""
    if tensor.device.type == "cpu" and tensor.numel() < ONE_THREAD:
        values = tensor.detach().float().numpy()
        return torch.tensor(values.min()), torch.tensor(values.max())
    least, largest = tensor.aminmax()
    return least.float(), largest.float()
