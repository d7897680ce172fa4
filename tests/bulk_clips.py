"""Many recordings for bulk runs: the bundled ones at other levels, speeds, and with noise.

In: a folder and a number. Out: files, some of them broken in different ways, and what is said.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from bundled import EXAMPLES, inside

RATE = 16_000
BROKEN = (b"", b"this is no sound", b"RIFF\x24\x00\x00\x00WAVEfmt ", b"fLaC" + bytes(60))


def write_clips(folder: Path, number: int, *, num_broken: int = 0, longest_s: float = 9.0) -> Path:
    """Write ``number`` recordings and a manifest of them, the broken ones spread evenly."""
    folder.mkdir(parents=True)
    known = inside()
    sounds = {name: soundfile.read(EXAMPLES / name, dtype="float32") for name in sorted(known)}
    short = [name for name, (wave, rate) in sounds.items() if len(wave) <= longest_s * rate]
    bad = {round((place + 0.5) * number / num_broken) for place in range(num_broken)}
    lines = []
    for place in range(number):
        name = short[place % len(short)]
        path = folder / f"{place:05d}.wav"
        if place in bad:
            path.write_bytes(BROKEN[place % len(BROKEN)])
        else:
            wave, rate = sounds[name]
            soundfile.write(path, varied(wave, place), rate, subtype="PCM_16")
        row = {"audio_filepath": path.name, "text": known[name]}
        lines.append(json.dumps(row) + "\n")
    manifest = folder / "clips.jsonl"
    manifest.write_text("".join(lines))
    return manifest


def varied(wave: np.ndarray, seed: int) -> np.ndarray:
    """A recording a little louder or softer, faster or slower, with a little noise."""
    draw = np.random.default_rng(seed)
    speed, gain = draw.uniform(0.98, 1.02), draw.uniform(0.5, 1.0)
    places = np.arange(0, len(wave) - 1, speed)
    noise = draw.normal(0.0, 2e-4, len(places))
    return gain * np.interp(places, np.arange(len(wave)), wave) + noise


def rows_in(folder: Path) -> list[dict[str, object]]:
    """The rows of all shards, sorted by recording."""
    rows = [
        json.loads(line)
        for part in folder.glob("part-*.jsonl")
        for line in part.read_bytes().splitlines()
    ]
    return sorted(rows, key=lambda row: str(row["audio_filepath"]))


def without_times(rows: Sequence[dict[str, object]]) -> list[dict[str, object]]:
    """What must be the same in every run."""
    return [{key: value for key, value in row.items() if key != "time"} for row in rows]


def copy_examples(folder: Path, *names: str) -> None:
    """Copy some of the bundled recordings."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.copy(EXAMPLES / name, folder / name)
