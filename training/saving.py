"""Files that training stages and fine-tuning runs keep: each is whole or not there.

In: what ``torch.save`` takes. Out: a file, and what it holds.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from core.errors import UserError
from core.saving import write_whole


def write_state(file: Path, state: Any, then: str = "start again") -> None:
    """Keep ``state`` (tensors, numbers, texts, lists and dicts of them) as ``write_whole`` does."""
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
