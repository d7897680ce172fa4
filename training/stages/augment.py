"""Augmentation of power mels: other voices, rooms, lines and noises out of the recordings we have.

In: a power mel [M, 80] at 100 Hz, a seeded ``torch.Generator``, a strength from 0 (as recorded) to
1 (hard). Out: a power mel [M, 80]. Every step is a function of its own; ``augment`` draws which of
them apply and how much. Only ``stretch`` changes the number of frames; it is applied to the parts
of a clip before they are joined, by ``training.stages.batches``.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Generator, Tensor

from training.stages.mels import FLOOR, NUM_MELS


@cache
def mel_centres() -> Tensor:
    """Compute the centre frequencies [80] in Hz of the HTK mel bank between 0 and 8 kHz."""
    top = 2595.0 * torch.log10(torch.tensor(1.0 + 8000.0 / 700.0))
    mels = torch.linspace(0.0, float(top), NUM_MELS + 2)[1:-1]
    return 700.0 * (10.0 ** (mels / 2595.0) - 1.0)


def uniform(low: float, high: float, rng: Generator) -> float:
    """Draw a number evenly between ``low`` and ``high``."""
    return low + (high - low) * float(torch.rand((), generator=rng))


def bernoulli(probability: float, rng: Generator) -> bool:
    """Draw True with the given probability."""
    return float(torch.rand((), generator=rng)) < probability


def stretch(power: Tensor, factor: float) -> Tensor:
    """Stretch to ``factor`` times as long: [M, 80] -> [round(M * factor), 80]."""
    frames = max(4, round(power.shape[0] * factor))
    log = power.log().T[None]
    log = torch.nn.functional.interpolate(log, size=frames, mode="linear", align_corners=True)
    return log[0].T.exp()


def warp(power: Tensor, factor: float, bend: Tensor | None = None) -> Tensor:
    """Warp every frequency up by ``factor``, as a shorter vocal tract does (VTLP).

    bend [80]: a share that the factor of each frequency differs by, as the parts of a mouth and a
    throat are not all longer or shorter by the same.

    Returns:
        The warped power mel [M, 80].
    """
    centres = mel_centres()
    factors = torch.tensor(factor) if bend is None else factor * (1.0 + bend)
    source = (centres / factors).clamp(min=float(centres[0]), max=float(centres[-1]))
    right = torch.searchsorted(centres, source).clamp(1, NUM_MELS - 1)
    low, high = centres[right - 1], centres[right]
    share = (source - low) / (high - low)
    log = power.log()
    return (log[:, right - 1] * (1.0 - share) + log[:, right] * share).exp()


def wave(height: float, rng: Generator) -> Tensor:
    """Draw a slow wave over the mels [80], half a turn to three turns, up to ``height``."""
    axis = torch.linspace(-0.5, 0.5, NUM_MELS)
    phase, waves = uniform(0.0, 6.283, rng), uniform(0.5, 3.0, rng)
    return height * torch.sin(6.283 * waves * axis + phase)


def equalise(power: Tensor, tilt_db: float, ripple_db: float, rng: Generator) -> Tensor:
    """Tilt the whole band and add a slow ripple, as of another microphone.

    Args:
        power: [M, 80].
        tilt_db: from the lowest mel to the highest.
        ripple_db: at most.
        rng: draws the ripple.

    Returns:
        [M, 80].
    """
    curve = tilt_db * torch.linspace(-0.5, 0.5, NUM_MELS) + wave(ripple_db, rng)
    return power * 10.0 ** (curve / 10.0)


def reverberate(power: Tensor, seconds: float, amount: float, rng: Generator) -> Tensor:
    """Add a decaying tail to every mel's power, roughened.

    Args:
        power: [M, 80].
        seconds: until the tail has fallen by 60 dB.
        amount: of the tail, in shares of the power.
        rng: roughens it.

    Returns:
        [M, 80].
    """
    taps = min(60, max(2, int(seconds * 100)))
    decay = 10.0 ** (-6.0 * torch.arange(1, taps + 1) / (100.0 * seconds))
    decay = amount * decay / decay.sum()
    padded = torch.nn.functional.pad(power.T[:, None], (taps, 0))[..., :-1]  # [80, 1, M+taps-1]
    tail = torch.nn.functional.conv1d(padded, decay.flip(0)[None, None])[:, 0].T
    return power + tail * (0.5 + torch.rand(power.shape, generator=rng))


def telephone(power: Tensor, low: float, high: float, floor_db: float) -> Tensor:
    """Keep a band of frequencies; the rest falls within an eighth octave.

    Args:
        power: [M, 80].
        low: the band's lower end in Hz.
        high: its upper end.
        floor_db: how far the rest falls.

    Returns:
        [M, 80].
    """
    octaves = torch.log2(mel_centres())
    below = (octaves.new_tensor(low).log2() - octaves).clamp(min=0.0)
    above = (octaves - octaves.new_tensor(high).log2()).clamp(min=0.0)
    fall = ((below + above) * 8.0).clamp(max=1.0) * floor_db
    return power * 10.0 ** (-fall / 10.0)


def speech_level(power: Tensor) -> float:
    """Average the power of the louder third of the frames, summed over mels."""
    loudness = power.sum(-1)
    return float(loudness.topk(max(1, loudness.shape[0] // 3)).values.mean())


def add_noise(power: Tensor, snr_db: float, colour: float, rng: Generator) -> Tensor:
    """Add noise with a spectrum of frequency to the power ``-colour``.

    Mel powers of Gaussian noise vary from frame to frame like sums of a few exponentials: narrow
    low mels a lot, wide high mels little.

    Args:
        power: [M, 80].
        snr_db: how far the noise is below speech.
        colour: 0 for white noise, 1 for pink.
        rng: draws the noise.

    Returns:
        [M, 80].
    """
    centres = mel_centres()
    shape = centres.clamp(min=100.0) ** -colour * (centres + 700.0)  # mel width grows with f + 700
    shape = shape / shape.sum() * speech_level(power) * 10.0 ** (-snr_db / 10.0)
    first, second = (
        -torch.rand(power.shape, generator=rng).clamp(min=1e-6).log() for _ in range(2)
    )
    return power + shape * (first + second) / 2.0


def mask_mels(power: Tensor, width: int, rng: Generator) -> Tensor:
    """Set a band of up to ``width`` mels to its own mean (SpecAugment's frequency mask)."""
    size = int(torch.randint(0, width + 1, (), generator=rng))
    begin = int(torch.randint(0, NUM_MELS - size + 1, (), generator=rng))
    out = power.clone()
    out[:, begin : begin + size] = power[:, begin : begin + size].log().mean().exp() if size else 0
    return out


def augment(power: Tensor, strength: float, rng: Generator) -> Tensor:
    """Make another recording of the same words: voice, microphone, room, noise, line, level.

    Args:
        power: [M, 80].
        strength: 0 to 1; how far from the recording the result may be, and how often.
        rng: the only source of chance.

    Returns:
        [M, 80], at least ``FLOOR`` everywhere.
    """
    if bernoulli(0.2 + 0.5 * strength, rng):
        factor = uniform(1.0 - 0.16 * strength, 1.0 + 0.18 * strength, rng)
        power = warp(power, factor, wave(uniform(0.0, 0.05, rng) * strength, rng))
    tilt = uniform(-14.0, 14.0, rng) * strength
    power = equalise(power, tilt, uniform(0.0, 4.0, rng) * strength, rng)
    if bernoulli(0.35 * strength, rng):
        power = reverberate(power, uniform(0.1, 0.6, rng), uniform(0.05, 0.5, rng), rng)
    line_first = bernoulli(0.5, rng)
    on_line = bernoulli(0.4 * strength + 0.05, rng)
    line = (uniform(0.0, 320.0, rng) + 1.0, uniform(3300.0, 4000.0, rng), uniform(25.0, 80.0, rng))
    if on_line and line_first:
        power = telephone(power, *line)
    if bernoulli(0.3 + 0.5 * strength, rng):
        snr = uniform(40.0 - 32.0 * strength, 42.0, rng)
        power = add_noise(power, snr, uniform(-0.5, 2.0, rng), rng)
    if on_line and not line_first:
        power = telephone(power, *line)
    if bernoulli(0.5 * strength, rng):
        power = mask_mels(mask_mels(power, 8, rng), 8, rng)
    gain_db = uniform(-25.0, 8.0, rng) * (0.3 + 0.7 * strength)
    return (power * 10.0 ** (gain_db / 10.0)).clamp(min=FLOOR)
