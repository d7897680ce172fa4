"""Channels -> one: their plain mean, or the loudest of them where they cancel each other.

In: blocks of channels [C, n] in order. Out: blocks [n]. FFmpeg's own downmix of 5.1 drops the bass
channel and weights the others; here all count alike, so a voice in one of two channels is halved,
not lost. A cable with crossed wires makes one channel the other turned round: their mean is silence
although both can be heard. So what is heard of a recording's first seconds decides, before any of
it is passed on.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from core.audio.report import DecodeReport

Samples = NDArray[np.float32]
Block = tuple[Samples, int]  # samples at full scale +-1.0, and their rate in Hz

HELD_VALUES = 2**21  # 8 MB: 22 s of stereo at 48 kHz, 1.4 s of 32 channels
# Independent channels leave 1/C of their power in their mean; 64 of them, the most, leave 1.6 %.
CANCELLING = 0.01
FAINT = 1e-4  # of full scale: what is below is passed on without a decision
CHANNELS_CANCEL = "the channels cancel each other: most of the sound is lost in their mean"


class _Powers:
    """Sums of squares: of each channel, and of their mean."""

    def __init__(self) -> None:
        self.channels: NDArray[np.float64] = np.zeros(1)
        self.mean = 0.0

    def add(self, channels: Samples) -> None:
        if len(channels) == 1:
            return
        if len(channels) != len(self.channels):
            self.channels, self.mean = np.zeros(len(channels)), 0.0
        self.channels += [float(np.vdot(c, c)) for c in channels]
        mean = mean_of_channels(channels)
        self.mean += float(np.vdot(mean, mean))

    @property
    def cancel(self) -> bool:
        return self.mean < CANCELLING * float(self.channels.mean())


def mean_of_channels(channels: Samples) -> Samples:
    """Average channels [C, n]: [n]."""
    return channels[0] if len(channels) == 1 else channels.mean(axis=0, dtype=np.float32)


def downmixed(blocks: Iterator[Block], report: DecodeReport) -> Iterator[Block]:
    """Yield each block's one channel, with its rate; report channels that cancel each other."""
    powers, held, num_held = _Powers(), list[Block](), 0
    loudest: int | None = None
    for channels, rate in blocks:
        if len(channels) > 1:
            faint = not held and not np.abs(channels).max(initial=0.0) > FAINT
            if not faint:
                powers.add(channels)
                held.append((channels, rate))
                num_held += channels.size
                if num_held < HELD_VALUES:
                    continue
                break
        elif held:
            held.append((channels, rate))
            break
        yield _one(channels, None), rate
    if powers.cancel:
        loudest = int(powers.channels.argmax())
        report.warn(f"the channels cancel each other; number {loudest + 1} was read alone")
    total = _Powers()
    for channels, rate in chain(held, blocks):
        if loudest is None:
            total.add(channels)
        yield _one(channels, loudest), rate
    if loudest is None and total.cancel:
        report.channels_cancel = True
        report.warn(CHANNELS_CANCEL)


def _one(channels: Samples, number: int | None) -> Samples:
    if number is not None and number < len(channels):
        return np.ascontiguousarray(channels[number])
    return mean_of_channels(channels)
