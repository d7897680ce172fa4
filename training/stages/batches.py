"""Training batches of speech: clips composed, augmented, grouped by length.

In: the corpus as power mels (``MelClip``). Out: batches in which every clip has exactly the same
number of frames, filled up with quiet of its own kind *before* augmentation, so that no padding
reaches the encoder (whose batch norm would count it).

Batches come in pools; pool ``k`` depends on the seed and ``k`` alone, so a run that resumes draws
what it would have drawn. Shapes: B clips, T frames at 50 Hz, M mel frames at 100 Hz.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from core.errors import UserError
from training.corpus.synthesis import VOICES
from training.corpus.text import OH
from training.stages.augment import add_noise, augment, stretch
from training.stages.mels import FLOOR, NUM_MELS, MelClip, features

MIXED = 3  # turns of a voice that is many speakers, for one of another
# How often a voice reads lines of the domain, strings of digits, lines of words in any order. Many
# of the last teach rare words, and that "two" is as likely as "to" wherever it sounds.
SHARES = {"synthetic": 0.65, "digits": 0.17, "words": 0.18}
BLOCK = 400  # mel frames of one attention block of 200 encoder frames (4 s)
LATE = 0.3  # of the clips of two blocks, with few words somewhere: the first block may be empty
LATE_SHORT = 0.15  # of the others, with silence before the words that may be longer than they


@dataclass(frozen=True)
class Batch:
    """features [B, T, F], F as :class:`Composer` makes them, and the text of each clip."""

    features: Tensor
    texts: tuple[str, ...]

    @property
    def lengths(self) -> Tensor:
        """Return [B] int64, all equal to T."""
        return torch.full((self.features.shape[0],), self.features.shape[1])


class RandomSources(NamedTuple):
    """The two sources of rngs of a pool: for choices, and for tensors."""

    python: random.Random
    torch: torch.Generator


def quiet(frames: int, like: Tensor, rngs: RandomSources) -> Tensor:
    """Make a pause, [frames, 80]: digital silence, or noise as quiet as ``like``'s floor."""
    if rngs.python.random() < 0.4:
        return torch.full((frames, NUM_MELS), FLOOR)
    floor = like.kthvalue(max(1, like.shape[0] // 10), dim=0).values
    rough = torch.rand((2, frames, NUM_MELS), generator=rngs.torch).clamp(min=1e-6).log().neg()
    return (floor * rough.mean(0)).clamp(min=FLOOR)


def silence(frames: int, rngs: RandomSources) -> Tensor:
    """Make a power mel [frames, 80] without speech: nothing at all, or noise of some colour."""
    nothing = torch.full((frames, NUM_MELS), FLOOR)
    if rngs.python.random() < 0.3:
        return nothing
    level, colour = rngs.python.uniform(-90.0, 0.0), rngs.python.uniform(-0.5, 2.0)
    return add_noise(nothing, level, colour, rngs.torch)


def tighten(power: Tensor, rng: random.Random) -> Tensor:
    """Cut the quiet ends, keeping up to 60 ms of them: many recordings begin in mid-sound."""
    loudness = power.sum(-1)
    loud = (loudness > loudness.max() * 10.0 ** rng.uniform(-4.5, -3.0)).nonzero()[:, 0]
    first = max(0, int(loud[0]) - rng.randint(0, 6))
    return power[first : int(loud[-1]) + 1 + rng.randint(0, 6)]


class Composer:
    """Draws clips: synthetic strings as they are, real digits joined to strings, and silence."""

    def __init__(
        self,
        clips: Sequence[MelClip],
        *,
        real_share: float,
        seed: int,
        joined: bool = False,
        to_features: Callable[[Tensor], Tensor] = features,
    ) -> None:
        """Sort clips by voice.

        Args:
            clips: to draw from.
            real_share: of recordings of people.
            seed: of all pools.
            joined: also several strings of one synthetic voice in a clip, for longer texts.
            to_features: of a power mel [M, 80]: the encoder's features [M // 2, F].

        Raises:
            UserError: there are no clips.
        """
        self.to_features = to_features
        self.synthetic = [s for s in clips if not s.speaker.startswith("fsdd-")]
        self.real: dict[str, list[MelClip]] = defaultdict(list)
        for one in clips:
            if one.speaker.startswith("fsdd-"):
                self.real[one.speaker].append(one)
        # The real speakers never say "oh": alone, it would be drawn far less often than any digit.
        self.synthetic += 4 * [s for s in self.synthetic if s.text == OH]
        if not self.synthetic and not self.real:
            raise UserError("the corpus has no training clips; run `python -m training corpus`")
        self.voices: dict[str, dict[str, list[MelClip]]] = defaultdict(lambda: defaultdict(list))
        for one in self.synthetic if joined else ():
            self.voices[one.speaker][one.part].append(one)
        # A slow engine's voice has fewer clips, not fewer turns; one that is many speakers has
        # more turns: what is scarce is voices.
        known = {voice.name: voice.weight * (MIXED if voice.mixed else 1) for voice in VOICES}
        usual = sum(known.values()) / len(known)
        self.turns = {name: known.get(name, usual) for name in sorted(self.voices)}
        self.real_share = real_share if self.real and self.synthetic else float(bool(self.real))
        self.seed = seed

    def compose(self, strength: float, room: int, rngs: RandomSources) -> tuple[Tensor, str]:
        """Compose a clip: power mel [M, 80], M <= ``room``, and its text (empty for silence)."""
        rng = rngs.python
        if rng.random() < 0.03:
            return silence(rng.randint(20, min(300, room)), rngs), ""
        if rng.random() < self.real_share:
            speaker = self.real[rng.choice(sorted(self.real))]
            wanted, pace = (
                rng.choice((1, 1, 1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 8)),
                rng.choice((5, 20, 45)),
            )
        else:
            speaker, wanted, pace = self._voice(rng)
        if room > BLOCK and rng.random() >= LATE:
            wanted = 99  # as many as fit
        tempo = 1.0
        if rng.random() < 0.3 + 0.5 * strength:
            tempo = rng.uniform(1.0 - 0.16 * strength, 1.0 + 0.2 * strength)
        parts, texts = self._join(speaker, wanted, pace, tempo, room - 80, rngs)
        if rng.random() < 0.6:
            spare = room - 40 - sum(part.shape[0] for part in parts)
            longest = max(40, spare) if rng.random() < LATE_SHORT else 40
            parts.insert(0, quiet(rng.randint(1, longest), parts[0], rngs))
        if rng.random() < 0.6:
            parts.append(quiet(rng.randint(1, 40), parts[-1], rngs))
        return torch.cat(parts), " ".join(texts)

    def _voice(self, rng: random.Random) -> tuple[list[MelClip], int, int]:
        """Strings to draw from, how many of them to join, and the longest pause between them."""
        if not self.voices:
            return self.synthetic, 1, 40
        (name,) = rng.choices(list(self.turns), list(self.turns.values()))
        parts = self.voices[name]
        (part,) = rng.choices(list(parts), [SHARES.get(part, 1.0) for part in parts])
        return parts[part], rng.choice((1, 1, 1, 1, 2, 2, 3)), 40

    def _join(
        self,
        pool: Sequence[MelClip],
        wanted: int,
        pace: int,
        tempo: float,
        room: int,
        rngs: RandomSources,
    ) -> tuple[list[Tensor], list[str]]:
        """``wanted`` clips of a pool, or as many as fit in ``room``, with pauses up to ``pace``."""
        parts: list[Tensor] = []
        texts: list[str] = []
        rng, misses = rngs.python, 0
        while len(texts) < wanted and misses < 20:
            one = rng.choice(pool)
            gap = rng.randint(0, pace) if texts else 0
            if round(one.log_power.shape[0] * tempo) + gap > room:
                misses += 1
                continue
            power = stretch(one.power(), tempo) * 10.0 ** rng.uniform(-0.4, 0.4)
            if rng.random() < 0.5:
                power = tighten(power, rng)
            if gap:
                parts.append(quiet(gap, power, rngs))
            parts.append(power)
            texts.append(one.text)
            room -= power.shape[0] + gap
        if not parts:  # nothing fitted: silence has an empty text, so the pair is still true
            parts.append(silence(24, rngs))
        return parts, texts

    def pool(
        self, index: int, strength: float, *, num_batches: int, frames: int
    ) -> Iterator[Batch]:
        """Draw the batches of a pool, in random order.

        An eighth of them are long clips of two attention blocks; the others fit into one block.

        Args:
            index: of the pool.
            strength: of the augmentation.
            num_batches: about how many.
            frames: at 50 Hz in a batch, about.

        Yields:
            The batches.
        """
        rng = random.Random(f"{self.seed}/{index}")
        rngs = RandomSources(rng, torch.Generator().manual_seed(rng.randrange(2**62)))
        num_long = max(1, num_batches // 8)
        groups = []
        for _ in range(num_long):
            count = max(2, frames // BLOCK)
            long = [self.compose(strength, 2 * BLOCK, rngs) for _ in range(count)]
            groups.append((long, 2 * BLOCK))
        clips: list[tuple[Tensor, str]] = []
        total = 2 * frames * (num_batches - num_long)
        while total > 0:
            clips.append(self.compose(strength, BLOCK, rngs))
            total -= clips[-1][0].shape[0]
        clips.sort(key=lambda clip: clip[0].shape[0])
        while clips:
            size = max(1, min(len(clips), 2 * frames // clips[-1][0].shape[0], 96))
            group, clips = clips[-size:], clips[:-size]
            groups.append((group, max(24, group[-1][0].shape[0])))
        rng.shuffle(groups)
        for group, room in groups:
            rows = [self.to_features(power) for power in _finish(group, room, strength, rngs)]
            yield Batch(torch.stack(rows), tuple(said for _, said in group))


def _finish(
    group: list[tuple[Tensor, str]], room: int, strength: float, rngs: RandomSources
) -> Iterator[Tensor]:
    """Bring every clip of a group to ``room`` mel frames with quiet, and augment it."""
    for power, _ in group:
        spare = room - power.shape[0]
        front = rngs.python.randint(0, spare)
        ends = quiet(front, power, rngs), quiet(spare - front, power, rngs)
        yield augment(torch.cat([ends[0], power, ends[1]]), strength, rngs.torch)
