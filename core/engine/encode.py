"""Many clips through the encoder: all at once on a GPU, a few at a time on a CPU.

In: padded features and real lengths. Out: the encoder's output for all rows. On a CPU a large batch
gains nothing, for one clip keeps the arithmetic units busy already, and it costs: its activations
no longer fit the caches, and short clips are padded to the longest. A group is padded to its own.

Shapes: B rows, T frames, F features.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from core.engine.stages import Engine
from core.model.encoder import EncoderOutput

FRAMES_AT_ONCE = 600  # of all rows of a group on a CPU; twelve seconds


def encode_in_groups(
    engine: Engine, values: Tensor, lengths: list[int], lora: Tensor | None
) -> EncoderOutput:
    """Encode features [B, T, F] of real ``lengths``; what lies past a group's own length is zeros.

    Args:
        engine: the stages.
        values: features, padded to what the engine asks for.
        lengths: real frames of each row.
        lora: [B, 1, 1] adapter switch, or None.
    """
    rows, whole = values.shape[:2]
    size = rows if values.device.type != "cpu" else max(1, FRAMES_AT_ONCE // whole)
    real = torch.tensor(lengths, device=values.device)
    if size >= rows:
        return engine.encode(values, real, lora)
    groups = []
    for start in range(0, rows, size):
        mine = slice(start, start + size)
        frames = min(whole, engine.frames_bucket(max(lengths[mine])))
        switch = None if lora is None else lora[mine]
        groups.append(engine.encode(values[mine, :frames].contiguous(), real[mine], switch))
    return EncoderOutput(*(_joined(parts, whole) for parts in zip(*groups, strict=True)))


def _joined(parts: tuple[Tensor, ...], num_frames: int) -> Tensor:
    """Parts [b, t, D] one under the other, [B, T, D], the shorter ones filled with zeros."""
    return torch.cat([F.pad(part, (0, 0, 0, num_frames - part.shape[1])) for part in parts])
