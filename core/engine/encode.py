"""Waveforms -> features -> encoder: all clips at once on a GPU, a few at a time on a CPU.

In: waveforms, or padded features and real lengths. Out: the encoder's output for all rows. On a CPU
a large batch gains nothing, for one clip keeps the arithmetic units busy already, and it costs: its
activations no longer fit the caches, and short clips are padded to the longest. A group is padded
to its own.

Shapes: B rows, N samples, T frames, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from core.engine.stages import EncodeStage, Engine
from core.model.encoder import EncoderOutput
from core.model.features import Features, LogMel, pad_features

FRAMES_AT_ONCE = 600  # of all rows of a group on a CPU; twelve seconds


class EncodingEngine(Protocol):
    """As much of an engine as encoding needs, of any family with this encoder."""

    @property
    def encode(self) -> EncodeStage:
        """Return the encoder's stage."""

    @property
    def frames_bucket(self) -> Callable[[int], int]:
        """Return what says how many frames to pad to."""


def extract_features(
    extractor: LogMel, engine: EncodingEngine, waveforms: Sequence[Tensor], like: Tensor
) -> Features:
    """Compute features [B, T, F] of waveforms, padded to what ``engine`` asks for.

    Args:
        extractor: the model's log-mel front end.
        engine: its stages.
        waveforms: [N] each, at 16 kHz, on any device.
        like: a tensor of the model's dtype on its device.

    Returns:
        The padded batch and the real frames of each row.
    """
    clips = [extractor(waveform.to(like.device)) for waveform in waveforms]
    padded = pad_features(clips, engine.frames_bucket(max(clip.shape[0] for clip in clips)))
    return Features(padded.values.to(like.dtype), padded.lengths)


def encode_in_groups(
    engine: EncodingEngine, features: Features, lora: Tensor | None
) -> EncoderOutput:
    """Encode a batch; what lies past a group's own length is zeros.

    Args:
        engine: the stages.
        features: the batch, padded to what the engine asks for.
        lora: [B, 1, 1] adapter switch, or None.

    Returns:
        Frames and CTC logits of all rows.
    """
    values, lengths = features.values, list(features.lengths)
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


def embed(
    extractor: LogMel,
    engine: Engine,
    waveforms: Sequence[Tensor],
    *,
    like: Tensor,
    lora: Tensor | None,
) -> tuple[EncoderOutput, Features]:
    """Run features and encoder in one call, for callers that time no phases.

    Args:
        extractor: the model's log-mel front end.
        engine: its stages.
        waveforms: [N] each, at 16 kHz.
        like: a tensor of the model's dtype on its device.
        lora: [B, 1, 1] adapter switch, or None.

    Returns:
        The encoder's output and the features it saw.
    """
    features = extract_features(extractor, engine, waveforms, like)
    return encode_in_groups(engine, features, lora), features


def _joined(parts: tuple[Tensor, ...], num_frames: int) -> Tensor:
    """Parts [b, t, D] one under the other, [B, T, D], the shorter ones filled with zeros."""
    return torch.cat([F.pad(part, (0, 0, 0, num_frames - part.shape[1])) for part in parts])
