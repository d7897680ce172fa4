"""The corpus: recordings as 16 kHz WAV files, and manifests that say what each one is.

In: the installed voices (for recordings of people see ``training.corpus.recordings``). Out: WAV
files in ``FOLDER/audio`` and one ``FOLDER/{synthetic,words,fsdd,asterisk,...}.jsonl`` for each
source, a line being a ``CorpusClip``. Files that exist are kept, so a run that stopped goes on
where it was.

Splits: "train"; "dev" (training voices, other texts); and those that no stage may train on, among
them "heldout_voice", "heldout_speaker", "asterisk_digits", "asterisk_strings", "outside".
"""

from __future__ import annotations

import json
import logging
import random
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import librosa
import numpy as np
import soundfile

from core.errors import UserError
from training.corpus import synthesis
from training.corpus.domains import DOMAINS
from training.corpus.everyday import everyday_line
from training.corpus.menu_grammar import Line

LOG = logging.getLogger(__name__)
RATE = 16_000
TRAIN_SPLITS = ("train",)
# What voices read: lines of the domain, lines full of rare words, lines of the digits' domain, and
# sentences of no domain (their split is "outside").
PARTS = ("synthetic", "words", "digits", "outside")


@dataclass(frozen=True)
class CorpusClip:
    """One recording: its file (relative to the corpus folder), what is said, by whom, what for."""

    audio: str
    text: str
    language: str
    speaker: str
    licence: str
    split: str


def read_manifest(folder: Path, splits: Iterable[str]) -> list[CorpusClip]:
    """Read the clips of some splits, over all manifests of a corpus (in a fixed order)."""
    wanted, clips = set(splits), []
    for manifest in sorted(folder.glob("*.jsonl")):
        for line in filter(None, manifest.read_text(encoding="utf-8").split("\n")):
            clip = CorpusClip(**json.loads(line))
            if clip.split in wanted:
                clips.append(clip)
    return clips


def recorded_clips(folder: Path, splits: Iterable[str]) -> list[CorpusClip]:
    """Read the clips of some splits whose recordings are here."""
    return [clip for clip in read_manifest(folder, splits) if (folder / clip.audio).exists()]


def write_manifest(folder: Path, name: str, clips: Iterable[CorpusClip]) -> int:
    """Write ``name``.jsonl and return how many clips it holds."""
    lines = [json.dumps(asdict(clip)) for clip in clips]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(lines)


def read_wav(folder: Path, clip: CorpusClip) -> np.ndarray:
    """Read the samples [N] float32 of a clip, at 16 kHz."""
    samples, rate = soundfile.read(folder / clip.audio, dtype="float32")
    assert rate == RATE, f"{clip.audio} has {rate} Hz; the corpus holds {RATE} Hz"
    return samples


def write_wav(path: Path, samples: np.ndarray) -> None:
    """Write samples [N] at 16 kHz as 16-bit PCM, scaled down if they would clip."""
    path.parent.mkdir(parents=True, exist_ok=True)
    peak = max(1.0, float(np.abs(samples).max(initial=0.0)) / 0.99)
    soundfile.write(path, samples / peak, RATE, subtype="PCM_16")


def resample(samples: np.ndarray, rate: float, factor: float = 1.0) -> np.ndarray:
    """Bring samples [N] at ``rate`` Hz to 16 kHz; ``factor`` > 1 plays faster and higher.

    Any factor is exact: librosa's resampler (soxr) needs no ratio of whole numbers.

    Returns:
        Samples at 16 kHz.
    """
    return librosa.resample(samples, orig_sr=rate * factor, target_sr=RATE)


def seeded(*parts: object) -> random.Random:
    """Make a generator that depends on the named parts alone."""
    return random.Random(zlib.crc32("/".join(map(str, parts)).encode()))


@dataclass(frozen=True)
class Script:
    """The texts that voices read.

    name: of the manifest. tested: whether some clips are kept for tests. split: of all clips, where
    the voice does not tell.
    """

    name: str
    line: Callable[[random.Random], Line]
    tested: bool = True
    split: str | None = None

    def where(self, voice: str) -> str:
        """Name the folder of a voice's clips below "audio", which also seeds them."""
        return voice if self.tested else f"{self.name}-{voice}"


def part_of(clip: CorpusClip) -> str:
    """Find the part of :data:`PARTS` whose script a voice read; "" for recordings of people."""
    folder = clip.audio.removeprefix("audio/").split("/")[0]
    if folder == clip.speaker:
        return PARTS[0]
    return next((part for part in PARTS if folder == f"{part}-{clip.speaker}"), "")


def script_of(part: str, domain: str) -> Script:
    """Find the script of a part of the corpus, one of :data:`PARTS`.

    Returns:
        The script.

    Raises:
        UserError: the domain has no lines for its rare words.
    """
    if part == "synthetic":
        return Script(part, DOMAINS[domain].line)
    if part == "outside":
        return Script(part, everyday_line, tested=False, split="outside")
    if part == "digits":
        return Script(part, DOMAINS["digits"].line, tested=False)
    line = DOMAINS[domain].word_line
    if line is None:
        able = ", ".join(name for name, one in DOMAINS.items() if one.word_line is not None)
        raise UserError(f"the domain {domain!r} has no rare words to read; one of {able} has")
    return Script(part, line, tested=False)


def _say(folder: Path, voice: synthesis.Voice, index: int, script: Script) -> CorpusClip | None:
    """Make the ``index``-th clip of a voice; None where the engine fails on it."""
    where = script.where(voice.name)
    rng = seeded(where, index)
    line = script.line(rng)
    held_back = script.tested and voice.split == "train" and index % 40 == 0
    split = script.split or ("dev" if held_back else voice.split)
    name = f"audio/{where}/{index:05d}.wav"
    clip = CorpusClip(name, line.text, "en", voice.name, voice.licence, split)
    if not (folder / name).exists():
        try:
            samples, rate = synthesis.speak(voice, line.said, rng)
        except Exception as error:  # a voice's package may raise anything; one clip is no loss
            LOG.warning("%s %d: %s", voice.name, index, error)
            return None
        vary = voice.split == "train" and rng.random() < 0.6
        factor = rng.uniform(0.87, 1.16) if vary else 1.0
        write_wav(folder / name, resample(samples, rate, factor))
    return clip


def _say_some(job: tuple[Path, synthesis.Voice, range, Script]) -> list[CorpusClip]:
    folder, voice, indices, script = job
    made = (_say(folder, voice, index, script) for index in indices)
    return [clip for clip in made if clip is not None]


def make_synthetic(
    folder: Path,
    num_clips: int,
    workers: int,
    domain: str = "digits",
    *,
    part: str = "synthetic",
    engines: Sequence[str] = (),
) -> int:
    """Read texts of a domain with every installed voice, in proportion to the voices' weights.

    Voices of other languages know the digits alone, and read nothing else.

    Args:
        folder: of the corpus.
        num_clips: over all voices.
        workers: processes.
        domain: a name of :data:`training.corpus.domains.DOMAINS`.
        part: one of :data:`PARTS`: "synthetic", "words" for lines in which rare words are
            frequent, "digits" for strings of digits beside another domain, "outside" for
            sentences to test with, which have words that no domain has.
        engines: only their voices; empty for all.

    Returns:
        The number of clips in ``PART.jsonl``. Voices that are not installed are logged.

    Raises:
        UserError: an unknown engine, or a domain without rare words.
    """
    script = script_of(part, domain)
    voices = _voices_for(script, digits="digits" in (domain, part), engines=engines)
    total = sum(voice.weight for voice in voices) or 1
    jobs = []
    for voice in voices:
        count = max(1, round(num_clips * voice.weight / total))
        jobs += [(folder, voice, range(i, min(i + 25, count)), script) for i in range(0, count, 25)]
    clips: list[CorpusClip] = []
    with ProcessPoolExecutor(workers) as pool:
        for done, made in enumerate(pool.map(_say_some, jobs), start=1):
            clips += made
            if done % 10 == 0:
                LOG.info("synthesis: %d of %d batches, %d clips", done, len(jobs), len(clips))
    return write_manifest(folder, script.name, [*_of_others(folder, script.name, voices), *clips])


def _voices_for(script: Script, *, digits: bool, engines: Sequence[str]) -> list[synthesis.Voice]:
    """Find the installed voices that can read a script; those of other languages know digits."""
    known = {voice.engine for voice in synthesis.VOICES}
    if not known.issuperset(engines):
        wrong = ", ".join(sorted(set(engines) - known))
        raise UserError(f"no voice has the engine {wrong}; expected some of {sorted(known)}")
    able = [
        voice
        for voice in synthesis.VOICES
        if (digits or voice.engine != "pico_accent")
        and (not engines or voice.engine in engines)
        and (script.tested or voice.split == "train")
    ]
    voices = [voice for voice in able if synthesis.available(voice)]
    for voice in able:
        if voice not in voices:
            LOG.warning("voice %s is not installed here: left out", voice.name)
    return voices


def _of_others(folder: Path, name: str, voices: Sequence[synthesis.Voice]) -> list[CorpusClip]:
    """Return the clips of a manifest whose voices did not read this time."""
    manifest, read = folder / f"{name}.jsonl", {voice.name for voice in voices}
    if not manifest.exists():
        return []
    clips = [
        CorpusClip(**json.loads(line))
        for line in filter(None, manifest.read_text("utf-8").split("\n"))
    ]
    return [clip for clip in clips if clip.speaker not in read]
