"""Small sets of recordings by other people, for testing only: read cards, channel names, novels.

In: what the Debian packages ``pocketsphinx-testdata`` and ``alsa-utils`` install. Out: 16 kHz WAV
files and ``others.jsonl``, in the splits "cards", "commands" (also a digit string) and "novel",
the last as an example of what a small model does not know.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from core.text.manifest import manifest_lines
from training.corpus.corpus import RATE, CorpusClip, resample, write_manifest, write_wav

POCKETSPHINX = Path("/usr/share/pocketsphinx/test/data")
ALSA = Path("/usr/share/sounds/alsa")
POCKETSPHINX_LICENCE = "BSD-2-Clause (pocketsphinx-testdata)"
LIBRIVOX_LICENCE = "public domain (LibriVox, in pocketsphinx-testdata)"
ALSA_LICENCE = "GPL-2.0 (alsa-utils)"
RAW = {
    "goforward.raw": "go forward ten meters",
    "tidigits/dhd.2934z.raw": "two nine three four zero",
}
_LINE = re.compile(r"<s>\s*(.*?)\s*</s>\s*\((.+)\)")


def _transcribed(folder: Path, listing: str) -> Iterator[tuple[Path, str]]:
    """(recording, text) of a Sphinx transcription file."""
    if (folder / listing).exists():
        for _, line in manifest_lines(folder / listing):
            found = _LINE.match(line)
            if found and (folder / f"{found.group(2)}.wav").exists():
                yield folder / f"{found.group(2)}.wav", " ".join(found.group(1).split())


def _found(pocketsphinx: Path, alsa: Path) -> Iterator[tuple[Path, str, str, str]]:
    """(recording, text, licence, split)."""
    for file, text in _transcribed(pocketsphinx / "cards", "cards.transcription"):
        yield file, text, POCKETSPHINX_LICENCE, "cards"
    for file, text in _transcribed(pocketsphinx / "librivox", "transcription"):
        yield file, text, LIBRIVOX_LICENCE, "novel"
    for name, text in RAW.items():
        if (pocketsphinx / name).exists():
            yield pocketsphinx / name, text, POCKETSPHINX_LICENCE, "commands"
    for file in sorted(alsa.glob("*_*.wav")):
        yield file, file.stem.replace("_", " ").lower(), ALSA_LICENCE, "commands"


def _read(file: Path) -> tuple[np.ndarray, int]:
    if file.suffix == ".raw":
        return np.fromfile(file, np.int16).astype(np.float32) / 32768.0, RATE
    samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    return samples.mean(1), rate


def make_public_test_sets(
    folder: Path, pocketsphinx: Path = POCKETSPHINX, alsa: Path = ALSA
) -> int:
    """Write what is installed here; returns how many recordings there are."""
    clips = []
    for file, text, licence, split in _found(pocketsphinx, alsa):
        name = f"audio/others/{split}_{file.stem}.wav"
        samples, rate = _read(file)
        write_wav(folder / name, resample(samples, rate))
        clips.append(CorpusClip(name, text, "en", f"others-{split}", licence, split))
    return write_manifest(folder, "others", clips) if clips else 0
