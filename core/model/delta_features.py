"""Waveform -> stacked log-mel features with their deltas: the front end of Granite Speech 5.0.

In: one mono 16 kHz float32 waveform. Out: features at 50 Hz; each row is two mel frames side by
side, every frame followed by its change over time: mel(t), delta(t), mel(t+1), delta(t+1). Equal to
transformers' ``GraniteSpeech5FeatureExtractor`` for a single clip. That one pads the waveforms of a
batch, which changes the last rows of shorter clips; here clips are computed one by one and their
rows are padded (:func:`core.model.features.pad_features`).

Shapes: N samples, M mel frames (100 Hz), R feature rows (50 Hz).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchaudio.functional import compute_deltas

from core.model.features import (
    FRAMES_PER_STEP,
    FeatureConfig,
    LogMel,
    check_waveform,
    log_compress,
    stack_frames,
)

VALUES_PER_BIN = 2 * FRAMES_PER_STEP  # the frames of a row, each with its deltas


@dataclass(frozen=True)
class DeltaFeatureConfig(FeatureConfig):
    """The front end as ``processor_config.json`` states it. delta_win_length: mel frames, odd."""

    delta_win_length: int

    def num_frames(self, num_samples: int) -> int:
        """Count the rows (50 Hz) of ``num_samples``; an odd last mel frame gets a partner."""
        return -(-(num_samples // self.hop_length) // FRAMES_PER_STEP)

    @property
    def row_width(self) -> int:
        """Return the values of a row."""
        return VALUES_PER_BIN * self.n_mels


class DeltaLogMel(LogMel):
    """Log-mel and deltas. The loudest bin is sought in the frames that are kept."""

    config: DeltaFeatureConfig

    def __init__(self, config: DeltaFeatureConfig) -> None:
        super().__init__(config)

    def forward(self, waveform: Tensor) -> Tensor:
        """Compute the features of one ``waveform`` [N] (float, 16 kHz).

        Returns:
            [R, 4*mels].

        Raises:
            UserError: the waveform is not one-dimensional or shorter than one window.
        """
        check_waveform(waveform, self.config.sampling_rate)
        frames = FRAMES_PER_STEP * self.config.num_frames(waveform.shape[0])  # M
        # Centred frames: the last one needs its middle sample.
        short = (frames - 1) * self.config.hop_length + 1 - waveform.shape[0]
        power = self.mel(F.pad(waveform.float(), (0, max(0, short))))[:, :frames]  # [mels, M]
        return stack_with_deltas(log_compress(power.T), self.config.delta_win_length)


def stack_with_deltas(log_mel: Tensor, delta_win_length: int) -> Tensor:
    """Put every frame's change beside it, and frames side by side: [M, mels] -> [R, 4*mels]."""
    deltas = compute_deltas(log_mel.T, win_length=delta_win_length).T
    return stack_frames(torch.cat((log_mel, deltas), dim=-1))
