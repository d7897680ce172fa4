"""Waveform -> stacked log-mel features, and the arithmetic of lengths (the only place for it).

In: mono 16 kHz float32 waveforms. Out: features at 50 Hz, and how many encoder frames and audio
tokens a number of samples becomes. Equal to transformers' ``GraniteSpeechFeatureExtractor`` for a
single clip; clips of a batch are computed one by one, so a clip's features never depend on its
neighbours (the reference pads the waveforms and clamps against the padded clip's maximum).

Shapes: N samples, M mel frames (100 Hz), T feature frames (50 Hz), B batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torchaudio
from torch import Tensor, nn

from core.errors import UserError

MIN_SAMPLES = 257  # reflect padding of half a 512-sample window needs more than 256 samples
DYNAMIC_RANGE = 8.0  # log10 units kept below the loudest bin: 80 dB
FRAMES_PER_STEP = 2  # two 10 ms mel frames become one 20 ms encoder frame


@dataclass(frozen=True)
class FeatureConfig:
    """The front end as ``preprocessor_config.json`` states it."""

    sampling_rate: int
    n_fft: int
    win_length: int
    hop_length: int
    n_mels: int

    def num_frames(self, num_samples: int) -> int:
        """Count the encoder frames (50 Hz) of ``num_samples``; an odd last mel frame is dropped."""
        return (num_samples // self.hop_length + 1) // FRAMES_PER_STEP

    def seconds_of_frames(self, num_frames: int) -> float:
        """Return the seconds that ``num_frames`` encoder frames last."""
        return num_frames * FRAMES_PER_STEP * self.hop_length / self.sampling_rate


def num_audio_tokens(num_frames: int, *, window: int, downsample: int) -> int:
    """Count the audio positions a prompt must reserve for ``num_frames`` encoder frames.

    Returns:
        ``window // downsample`` for every started window of ``window`` frames.
    """
    return -(-num_frames // window) * (window // downsample)


@dataclass(frozen=True)
class Features:
    """A batch. values: [B, T, 2*mels], zero past each clip; lengths: frames per clip."""

    values: Tensor
    lengths: tuple[int, ...]


class LogMel(nn.Module):
    """Log-mel front end of Granite Speech 3.x and 4.x.

    Source: transformers ``feature_extraction_granite_speech.py``; periodic Hann of ``win_length``
    centred in ``n_fft``, power spectrum, HTK mel scale without normalisation, reflect padding.
    """

    def __init__(self, config: FeatureConfig) -> None:
        super().__init__()
        self.config = config
        self.mel = torchaudio.transforms.MelSpectrogram(
            sample_rate=config.sampling_rate,
            n_fft=config.n_fft,
            win_length=config.win_length,
            hop_length=config.hop_length,
            n_mels=config.n_mels,
        )

    def forward(self, waveform: Tensor) -> Tensor:
        """Compute the features of one ``waveform`` [N] (float, 16 kHz).

        Returns:
            [T, 2*mels].

        Raises:
            UserError: the waveform is not one-dimensional or shorter than one window.
        """
        check_waveform(waveform, self.config.sampling_rate)
        return stack_frames(log_compress(self.mel(waveform.float()).T))  # [T, 2*mels]


class WholeStepsLogMel(LogMel):
    """Log-mel front end of Granite Speech NAR: the last, centred mel frame is never used.

    N samples make N // 320 frames, and the clip's maximum is that of these alone.
    """

    def forward(self, waveform: Tensor) -> Tensor:
        """Compute the features [T, 2*mels] of one ``waveform`` [N]; as :class:`LogMel`."""
        check_waveform(waveform, self.config.sampling_rate)
        steps = waveform.shape[0] // (FRAMES_PER_STEP * self.config.hop_length)
        mel = self.mel(waveform.float()).T[: FRAMES_PER_STEP * steps]
        return stack_frames(log_compress(mel))


def check_waveform(waveform: Tensor, sampling_rate: int) -> None:
    """Check that ``waveform`` is one clip [N] of at least one window.

    Raises:
        UserError: the waveform is not one-dimensional or shorter than one window.
    """
    if waveform.ndim != 1:
        raise UserError(f"expected one mono waveform [N], got shape {tuple(waveform.shape)}")
    if waveform.shape[0] < MIN_SAMPLES:
        raise UserError(
            f"the recording has {waveform.shape[0]} samples; at least {MIN_SAMPLES} "
            f"({1000 * MIN_SAMPLES / sampling_rate:.0f} ms) are needed"
        )


def log_compress(power: Tensor) -> Tensor:
    """Turn power mel [..., M, mels] into log10, at most 8 below its maximum, scaled to 0..1."""
    log_mel = power.clamp(min=1e-10).log10()
    floor = log_mel.amax(dim=(-2, -1), keepdim=True) - DYNAMIC_RANGE
    return torch.maximum(log_mel, floor) / 4 + 1


def stack_frames(log_mel: Tensor) -> Tensor:
    """Put pairs of mel frames side by side; an odd last one is dropped.

    Returns:
        [..., M // 2, 2*mels] of ``log_mel`` [..., M, mels].
    """
    even = log_mel.shape[-2] // FRAMES_PER_STEP * FRAMES_PER_STEP
    kept = log_mel[..., :even, :]
    return kept.reshape(*kept.shape[:-2], even // FRAMES_PER_STEP, -1)


def pad_features(clips: list[Tensor], length: int | None = None) -> Features:
    """Pad clips [T_i, F] with zeros to a batch [B, T, F]; ``length`` fixes T (a compile bucket)."""
    lengths = tuple(clip.shape[0] for clip in clips)
    total = max(lengths) if length is None else length
    if total < max(lengths):
        raise ValueError(f"{max(lengths)} frames do not fit a bucket of {total}")
    values = clips[0].new_zeros(len(clips), total, clips[0].shape[-1])
    for row, clip in enumerate(clips):
        values[row, : clip.shape[0]] = clip
    return Features(values, lengths)
