"""Recordings of people: the Free MelClip Digit Dataset and the Asterisk English prompts.

In: a folder of ``{digit}_{speaker}_{index}.wav`` files; the G.722 prompts and texts that the Debian
packages ``asterisk-core-sounds-en-g722`` and ``asterisk-core-sounds-en`` install. Out: 16 kHz WAV
files and manifests in a corpus folder. One speaker and all of Asterisk are for testing only.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import soundfile

from training.corpus import prompt_texts, text
from training.corpus.corpus import RATE, CorpusClip, resample, seeded, write_manifest, write_wav

FSDD_HELD_OUT = "theo"
FSDD_LICENCE = "CC-BY-SA-4.0 (Free MelClip Digit Dataset)"
ASTERISK_LICENCE = "CC-BY-SA-3.0 (Asterisk core sounds, Allison Smith)"
ASTERISK_SOUNDS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")


def make_fsdd(folder: Path, source: Path) -> int:
    """Bring ``{digit}_{speaker}_{index}.wav`` files to 16 kHz; one speaker is held out whole."""
    clips = []
    for path in sorted(source.glob("*_*_*.wav")):
        digit, speaker, _ = path.stem.split("_")
        name = f"audio/fsdd/{path.name}"
        if not (folder / name).exists():
            samples, rate = soundfile.read(path, dtype="float32")
            write_wav(folder / name, resample(samples, rate))
        split = "heldout_speaker" if speaker == FSDD_HELD_OUT else "train"
        word = text.DIGIT_WORDS[int(digit)]
        clips.append(CorpusClip(name, word, "en", f"fsdd-{speaker}", FSDD_LICENCE, split))
    return write_manifest(folder, "fsdd", clips)


def _read_g722(path: Path) -> np.ndarray:
    """Raw G.722 (16 kHz) -> samples [N] float32."""
    with av.open(str(path), format="g722") as container:
        frames = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
    return np.concatenate(frames).astype(np.float32) / 32768.0


def asterisk_prompts(sounds: Path, texts: Path) -> Iterator[tuple[str, str]]:
    """Iterate over (key, text) of recorded Asterisk prompts wholly in the digits' words."""
    with gzip.open(texts, "rt", encoding="utf-8") as lines:
        for line in lines:
            key, _, said = line.partition(":")
            words = text.transcript(said.lower()).split()
            known = words and text.VOCABULARY.issuperset(words)
            if not key.startswith(";") and known and (sounds / f"{key}.g722").exists():
                yield key, " ".join(words)


def make_prompts(folder: Path, sounds: Path, texts: Path) -> int:
    """Write all recorded prompts with words, for testing only, split by what training met.

    "prompts_met": the text was read by synthetic voices; "prompts_unmet": its words are known, the
    text is not; "prompts_letters": letters and the NATO alphabet; "prompts_outside": words that
    the grammar lacks.

    Returns:
        How many recordings there are.
    """
    met, clips = set(prompt_texts.readable_texts(texts)), []
    for key, said in prompt_texts.read_prompts(texts).items():
        if not (sounds / f"{key}.g722").exists():
            continue
        if not prompt_texts.is_known(said):
            split = "prompts_outside"
        elif key.startswith(("letters/", "phonetic/")):
            split = "prompts_letters"
        else:
            split = "prompts_met" if said in met else "prompts_unmet"
        name = f"audio/prompts/{key.replace('/', '_')}.wav"
        write_wav(folder / name, _read_g722(sounds / f"{key}.g722"))
        clips.append(CorpusClip(name, said, "en", "asterisk-allison", ASTERISK_LICENCE, split))
    return write_manifest(folder, "prompts", clips)


def make_asterisk(folder: Path, sounds: Path, texts: Path, num_strings: int) -> int:
    """Write the recorded single digits, and strings joined from them (2 to 10 digits).

    The package holds no recorded digit strings: the strings are the real recordings one after the
    other, as a telephone system plays them, with 30 to 250 ms of quiet between.

    Args:
        folder: of the corpus.
        sounds: folder of the recordings.
        texts: the file of their texts.
        num_strings: how many strings.

    Returns:
        How many recordings there are.
    """
    recorded = {
        said: _read_g722(sounds / f"{key}.g722") for key, said in asterisk_prompts(sounds, texts)
    }
    clips = []

    def add(split: str, name: str, said: str, samples: np.ndarray) -> None:
        write_wav(folder / name, samples)
        clips.append(CorpusClip(name, said, "en", "asterisk-allison", ASTERISK_LICENCE, split))

    for said, samples in recorded.items():
        add("asterisk_digits", f"audio/asterisk/{said}.wav", said, samples)
    for index in range(num_strings):
        rng = seeded("asterisk", index)
        words = [rng.choice(sorted(recorded)) for _ in range(rng.randint(2, 10))]
        parts: list[np.ndarray] = []
        for word in words:
            parts += [recorded[word], np.zeros(int(RATE * rng.uniform(0.03, 0.25)), np.float32)]
        joined = np.concatenate(parts[:-1])
        add("asterisk_strings", f"audio/asterisk/string_{index:03d}.wav", " ".join(words), joined)
    return write_manifest(folder, "asterisk", clips)
