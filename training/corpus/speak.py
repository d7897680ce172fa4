"""Recordings of new words, read by the installed voices: data to try fine-tuning with.

In: words, and the voices of ``training.corpus.synthesis`` that are installed here. Out: WAV files
at 16 kHz and ``train.jsonl``, ``dev.jsonl``, ``test.jsonl`` beside them. Texts are one to four of
the words, now and then with words that are known already among them. The test manifest holds voices
that are in neither of the others: whoever speaks to the model has not been trained on.

Files that exist are kept, so a run that was stopped goes on. Needs librosa and soundfile, and no
torch.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.errors import UserError
from training.corpus import synthesis
from training.corpus.corpus import resample, seeded, write_wav
from training.corpus.manifest import DEV, TRAIN, ManifestRow, write_manifest

LOG = logging.getLogger(__name__)
TEST = "test"
DEV_EVERY = 12  # of a training voice's clips, one in so many is for validation
KNOWN_SHARE = 0.5  # of the texts with several words, those that mix in known ones
# Voices that read anything: the others respell the words of one domain.
_READS_DOMAIN_ONLY = frozenset({"pico_accent"})


@dataclass(frozen=True)
class SpeakOptions:
    """The words to speak. known: words the model has; clips: of all training voices together."""

    words: tuple[str, ...]
    known: tuple[str, ...]
    clips: int
    test_clips: int
    seed: int


def compose(rng: random.Random, words: Sequence[str], known: Sequence[str]) -> str:
    """Draw one to four words; half of them alone: their sounds are learned soonest."""
    count = rng.choice((1, 1, 1, 2, 3, 4))
    said = [rng.choice(words) for _ in range(count)]
    if count > 1 and known and rng.random() < KNOWN_SHARE:
        for place in range(count):
            if rng.random() < 0.5:
                said[place] = rng.choice(known)
    return " ".join(said)


def voices_here() -> tuple[list[synthesis.Voice], list[synthesis.Voice]]:
    """Find installed voices for training and for the test, which has one of its own.

    Returns:
        Voices of either kind.

    Raises:
        UserError: fewer than two voices are installed.
    """
    here = [
        voice
        for voice in synthesis.VOICES
        if voice.engine not in _READS_DOMAIN_ONLY and synthesis.available(voice)
    ]
    train = [voice for voice in here if voice.split == TRAIN]
    test = [voice for voice in here if voice.split != TRAIN]
    if not test and len(train) > 1:
        test = [train.pop(0)]
    if not train or not test:
        raise UserError(
            f"{len(here)} voices are installed; expected at least two: install espeak-ng and "
            "flite, or the packages of requirements-training.txt"
        )
    return train, test


def speak(folder: Path, options: SpeakOptions) -> dict[str, int]:
    """Make the recordings and the three manifests; returns rows by manifest."""
    if not options.words:
        raise UserError("no words came; expected at least one")
    train, test = voices_here()
    LOG.info("trained on: %s", ", ".join(voice.name for voice in train))
    LOG.info("test: %s", ", ".join(voice.name for voice in test))
    rows = _read_by(folder, train, options, options.clips)
    train_rows = [row for row in rows if row.split != DEV]
    dev = [row for row in rows if row.split == DEV]
    plain = SpeakOptions(options.words, (), 0, options.test_clips, options.seed + 1)
    test_rows = _read_by(folder, test, plain, options.test_clips, split=TEST)
    parts = {"train": train_rows, "dev": dev, "test": test_rows}
    return {name: write_manifest(folder / f"{name}.jsonl", part) for name, part in parts.items()}


def _read_by(
    folder: Path,
    voices: Sequence[synthesis.Voice],
    options: SpeakOptions,
    clips: int,
    split: str | None = None,
) -> list[ManifestRow]:
    """``clips`` recordings in proportion to the voices' weights."""
    total = sum(voice.weight for voice in voices)
    rows = []
    for voice in voices:
        count = max(1, round(clips * voice.weight / total))
        made = (_say(folder, voice, index, options, split) for index in range(count))
        rows += [row for row in made if row is not None]
        LOG.info("%s: %d clips", voice.name, count)
    return rows


def _say(
    folder: Path, voice: synthesis.Voice, index: int, options: SpeakOptions, split: str | None
) -> ManifestRow | None:
    """Record the ``index``-th clip of a voice; None where the engine fails on it."""
    rng = seeded(options.seed, voice.name, index)
    said = compose(rng, options.words, options.known)
    file = folder / "audio" / voice.name / f"{options.seed}-{index:05d}.wav"
    if not file.exists():
        try:
            samples, rate = synthesis.speak(voice, said, rng)
        except Exception as error:  # an engine may raise anything; one clip is no loss
            LOG.warning("%s %d: %s", voice.name, index, error)
            return None
        vary = split is None and rng.random() < 0.6
        write_wav(file, resample(samples, rate, rng.uniform(0.87, 1.16) if vary else 1.0))
    part = split or (DEV if index % DEV_EVERY == 0 else TRAIN)
    return ManifestRow(file, said, "en", voice.name, voice.licence, split=part)
