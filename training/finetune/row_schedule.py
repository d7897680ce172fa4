"""Which recordings a step of fine-tuning takes: epochs of new ones, a share of older ones.

In: rows and how long they are. Out: the draws of any batch by its number; they depend on the seed
and that number alone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from core.errors import UserError
from training.corpus.manifest import ManifestRow


@dataclass(frozen=True)
class Size:
    """The largest batch: clips, and seconds of sound with padding."""

    clips: int
    seconds: float

    def __post_init__(self) -> None:
        if self.clips < 1 or not self.seconds > 0:
            raise UserError(
                f"a batch of {self.clips} clips and {self.seconds:g} s; expected at least 1 clip"
            )


@dataclass(frozen=True)
class Source:
    """Rows to draw from, and how long each is."""

    rows: Sequence[ManifestRow]
    seconds: Sequence[float]


@dataclass(frozen=True)
class Draw:
    """One clip of a step: its row, and what its augmentation is drawn from."""

    row: ManifestRow
    seed: str


def order(seconds: Sequence[float], size: Size, rng: random.Random) -> list[list[int]]:
    """Order row numbers in batches: shuffled, then of like length within sixteen batches."""
    shuffled = rng.sample(range(len(seconds)), len(seconds))
    groups = []
    for start in range(0, len(shuffled), 16 * size.clips):
        pool = sorted(shuffled[start : start + 16 * size.clips], key=lambda index: seconds[index])
        group: list[int] = []
        for index in pool:
            full = len(group) == size.clips or (len(group) + 1) * seconds[index] > size.seconds
            if group and full:
                groups.append(group)
                group = []
            group.append(index)
        groups.append(group)
    rng.shuffle(groups)
    return groups


class Schedule:
    """Which rows a batch takes: new ones in epochs; a share of the batches are of older rows.

    Old and new do not share batches: their clips differ in length, and padding costs time. A batch
    has at most ``size.clips`` clips and, padded, ``size.seconds`` of sound.
    """

    def __init__(
        self, new: Source, keep: Source | None, *, size: Size, keep_share: float, seed: int
    ) -> None:
        self._new, self._keep, self._size, self._seed = new, keep, size, seed
        self._share = keep_share if keep is not None else 0.0
        self._epochs: dict[str, tuple[list[list[list[int]]], int]] = {}

    def batch(self, number: int) -> list[Draw]:
        """Draw the ``number``-th batch of the run, from 0."""
        before, now = int(number * self._share), int((number + 1) * self._share)
        if self._keep is not None and now > before:
            rows, group = self._keep.rows, self._group("keep", self._keep, before)
        else:
            rows, group = self._new.rows, self._group("new", self._new, number - now)
        return [
            Draw(rows[row], f"{self._seed}/{number}/{place}") for place, row in enumerate(group)
        ]

    def batches_of(self, epochs: float) -> int:
        """Count the batches, old rows' included, that go ``epochs`` times through new rows."""
        per_epoch = len(order(self._new.seconds, self._size, random.Random(0)))
        return max(1, round(epochs * per_epoch / (1.0 - self._share)))

    def _group(self, name: str, source: Source, place: int) -> list[int]:
        """Find the ``place``-th batch of a source, over all its epochs."""
        made, count = self._epochs.get(name, ([], 0))
        while count <= place:
            rng = random.Random(f"{self._seed}/{name}/{len(made)}")
            made.append(order(source.seconds, self._size, rng))
            count += len(made[-1])
        self._epochs[name] = (made, count)
        for epoch in made:
            if place < len(epoch):
                return epoch[place]
            place -= len(epoch)
        raise AssertionError("a place within the epochs that were made")
