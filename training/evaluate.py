"""Word error rates of a checkpoint on recordings that no stage has trained on.

In: a corpus folder and a checkpoint (name or folder) loaded by ``core``. Out: one row for each test
set with the adapter on and off; a set whose recordings are absent is reported as absent.

Sets: Asterisk's recorded single digits; strings joined from them; a synthetic voice held out whole;
single 8 kHz digits of a speaker held out whole; other texts by the training voices; silence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import core
from training.corpus import Clip, read_manifest
from training.scores import Rate, error_rate

SETS = (
    ("asterisk single digits", "asterisk_digits", None),
    ("asterisk digit strings", "asterisk_strings", None),
    ("held-out voice pico-en-gb", "heldout_voice", "pico-en-gb"),
    ("held-out voice kokoro-kumo", "heldout_voice", "kokoro-kumo"),
    ("unseen speaker fsdd-theo", "heldout_speaker", None),
    ("training voices, other texts", "dev", None),
)


@dataclass(frozen=True)
class Row:
    """One line of the table; rates are None where the recordings are absent."""

    name: str
    lora: bool
    words: Rate | None
    characters: Rate | None
    pairs: tuple[tuple[str, str], ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: everything but the transcripts that are right."""
        wrong = [pair for pair in self.pairs if pair[0] != pair[1]]
        return asdict(self) | {"pairs": wrong[:50]}


def clips_of(corpus: Path, split: str, speaker: str | None) -> list[Clip]:
    """The clips of a split whose recordings are here."""
    clips = read_manifest(corpus, [split])
    wanted = [clip for clip in clips if speaker is None or clip.speaker == speaker]
    return [clip for clip in wanted if (corpus / clip.audio).exists()]


def evaluate(
    corpus: Path, model: str, *, limit: int | None = None, lora_off_limit: int = 40
) -> Iterator[Row]:
    """Transcribe every set with the adapter on, and the first clips of it with the adapter off."""
    lab = core.load(model)
    for name, split, speaker in SETS:
        clips = clips_of(corpus, split, speaker)[:limit]
        for lora in (True, False):
            used = clips if lora else clips[:lora_off_limit]
            pairs = tuple(
                (clip.text, lab.transcribe(str(corpus / clip.audio), lora=lora).text)
                for clip in used
            )
            yield _row(name, lora, pairs)


def _row(name: str, lora: bool, pairs: Sequence[tuple[str, str]]) -> Row:
    if not pairs:
        return Row(name, lora, None, None, ())
    clean = tuple((said, " ".join(heard.split())) for said, heard in pairs)
    return Row(name, lora, error_rate(clean), error_rate(clean, characters=True), clean)


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| recordings | LoRA | clips | exact | WER % (95 % interval) | CER % |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        on = "on" if row.lora else "off"
        if row.words is None or row.characters is None:
            lines.append(f"| {row.name} | {on} | absent | | | |")
            continue
        words = row.words
        lines.append(
            f"| {row.name} | {on} | {words.num_clips} | {words.num_exact} | "
            f"{words.percent:.1f} ({words.low:.1f} to {words.high:.1f}) | "
            f"{row.characters.percent:.1f} |"
        )
    return "\n".join(lines)
