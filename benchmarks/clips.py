"""The recordings that are measured: a bundled one, repeated or cut to a length.

In: seconds. Out: waveforms [N] at 16 kHz, the same in every process.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from core.audio.decode import load_audio
from core.audio.waveform import SAMPLE_RATE
from core.checkpoint.catalog import ASSETS
from core.errors import UserError
from profiling.measure.length_table import tiled

EXAMPLES = ASSETS / "examples"
CLIP = EXAMPLES / "string_six_three_oh_seven_zero_six.flac"
SHIFT_S = 0.37  # between the clips of a batch, so that no two are alike


def clip_of(seconds: float) -> Tensor:
    """Repeat the bundled recording and cut it to ``seconds``."""
    return tiled(load_audio(CLIP), seconds)


def batch_of(seconds: float, rows: int) -> list[Tensor]:
    """Make ``rows`` different clips of ``seconds``."""
    clip = clip_of(seconds)
    return [torch.roll(clip, -round(row * SHIFT_S * SAMPLE_RATE)) for row in range(rows)]


def recordings_in(folder: Path) -> list[Path]:
    """List the recordings of a folder, in the order of their names.

    Returns:
        Their paths.

    Raises:
        UserError: there are none.
    """
    found = sorted(p for p in folder.glob("*") if p.suffix.lower() in (".flac", ".wav", ".mp3"))
    if not found:
        raise UserError(f"{folder} holds no flac, wav or mp3 files; expected recordings")
    return found
