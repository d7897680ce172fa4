"""Power mels: what augmentation works on, and how they become the encoder's features.

In: waveforms [N] at 16 kHz. Out: power mels [M, 80] at 100 Hz (M mel frames), and from those the
stacked log-mel features [T, 160] at 50 Hz (T = M // 2), by the arithmetic of
``core.model.features``.

Power mels of a whole corpus are kept as float16 decimal logarithms in one file.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import torchaudio
from torch import Tensor

from core.checkpoint.config_granite_speech5_ctc import STANDARD_FRONT_END
from core.model.delta_features import stack_with_deltas
from core.model.features import log_compress, stack_frames
from training.corpus.corpus import RATE, CorpusClip, part_of, read_wav

LOG = logging.getLogger(__name__)
NUM_MELS = 80
FLOOR = 1e-10
HOP = 160


@dataclass(frozen=True)
class MelClip:
    """A clip ready for training: log10 power mel [M, 80] float16, text, speaker.

    part: of the corpus (``training.corpus.corpus.part_of``).
    """

    log_power: Tensor
    text: str
    speaker: str
    part: str = ""

    def power(self) -> Tensor:
        """Return the power mel [M, 80] float32."""
        return torch.pow(10.0, self.log_power.float())


@cache
def _transform() -> torchaudio.transforms.MelSpectrogram:
    return torchaudio.transforms.MelSpectrogram(
        sample_rate=RATE, n_fft=512, win_length=400, hop_length=HOP, n_mels=NUM_MELS
    )


def power_mel(samples: Tensor) -> Tensor:
    """Compute the power mel of a waveform [N].

    A clip shorter than half a window is padded to one, because the transform mirrors its edges.

    Returns:
        [N // 160 + 1, 80].
    """
    if samples.shape[0] < 400:
        samples = torch.nn.functional.pad(samples, (0, 400 - samples.shape[0]))
    return _transform()(samples).T.clamp(min=FLOOR)


def features(power: Tensor) -> Tensor:
    """Convert a power mel [M, 80] to features [M // 2, 160]."""
    return stack_frames(log_compress(power))


def delta_features(power: Tensor) -> Tensor:
    """Convert a power mel [M, 80] to the features [M // 2, 320] of the family with deltas."""
    return stack_with_deltas(log_compress(power), STANDARD_FRONT_END.delta_win_length)


def load(
    folder: Path, clips: Sequence[CorpusClip], cache_file: Path | None = None
) -> list[MelClip]:
    """Load the power mels of clips, in their order; read from ``cache_file`` where it has them.

    Only clips that the cache lacks are computed; the cache is then written anew.

    Returns:
        A clip each.
    """
    known: dict[str, Tensor] = {}
    if cache_file is not None and cache_file.exists():
        known = torch.load(cache_file, weights_only=True)
    missing = [clip for clip in clips if clip.audio not in known]
    for clip in missing:
        samples = torch.from_numpy(read_wav(folder, clip))
        known[clip.audio] = power_mel(samples).log10().half()
    if missing and cache_file is not None:
        LOG.info("power mels: %d computed, %d kept in %s", len(missing), len(known), cache_file)
        torch.save(known, cache_file)
    return [MelClip(known[clip.audio], clip.text, clip.speaker, part_of(clip)) for clip in clips]
