"""Word error rates of a checkpoint on recordings that no stage has trained on.

In: a corpus folder and a checkpoint (name or folder) loaded by ``core``. Out: one row for each test
set and each way of hearing it (``training.stages.systems``); a set whose recordings are absent is
reported as absent. Texts of other domains are there to fail, and to be said to be outside.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from training.corpus.corpus import CorpusClip, read_manifest
from training.stages.systems import SystemOutput, way
from training.stages.wer import ErrorRate, error_rate

SETS = (
    ("asterisk single digits", "asterisk_digits", None),
    ("asterisk digit strings", "asterisk_strings", None),
    ("asterisk prompts, text met", "prompts_met", None),
    ("asterisk prompts, text unseen", "prompts_unmet", None),
    ("asterisk letters and NATO", "prompts_letters", None),
    ("held-out voice pico-en-gb", "heldout_voice", "pico-en-gb"),
    ("held-out voice kokoro-kumo", "heldout_voice", "kokoro-kumo"),
    ("unseen speaker fsdd-theo", "heldout_speaker", None),
    ("pocketsphinx cards", "cards", None),
    ("commands and channel names", "commands", None),
    ("training voices, other texts", "dev", None),
    ("outside: asterisk prompts", "prompts_outside", None),
    ("outside: everyday sentences", "outside", None),
    ("outside: a novel", "novel", None),
)
DEFAULT_WAYS = ("greedy", "lora-off")


@dataclass(frozen=True)
class ScoreRow:
    """One line of the table; rates are None where the recordings are absent.

    warned: percent of clips said to be outside. note: what else there is to say of a way.
    """

    name: str
    way: str
    words: ErrorRate | None
    characters: ErrorRate | None
    pairs: tuple[tuple[str, str], ...]
    warned: float = 0.0
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON: everything but the transcripts that are right."""
        wrong = [pair for pair in self.pairs if pair[0] != pair[1]]
        return asdict(self) | {"pairs": wrong[:50]}


def clips_of(corpus: Path, split: str, speaker: str | None) -> list[CorpusClip]:
    """The clips of a split whose recordings are here."""
    clips = read_manifest(corpus, [split])
    wanted = [clip for clip in clips if speaker is None or clip.speaker == speaker]
    return [clip for clip in wanted if (corpus / clip.audio).exists()]


def evaluate(
    corpus: Path,
    model: str,
    *,
    ways: Sequence[str] = DEFAULT_WAYS,
    limit: int | None = None,
    lora_off_limit: int = 40,
) -> Iterator[ScoreRow]:
    """Hear every set in every way; with the adapter off only the first clips of it.

    Raises:
        ValueError: a way that there is not, or whose packages are missing.
    """
    hearing = {name: way(name, model) for name in ways}
    for name, split, speaker in SETS:
        clips = clips_of(corpus, split, speaker)[:limit]
        greedy: list[SystemOutput] = []
        for kind, listen in hearing.items():
            used = clips[:lora_off_limit] if kind == "lora-off" else clips
            heard = [listen(corpus / clip.audio, clip.text) for clip in used]
            if kind == "greedy":
                greedy = heard
            yield _row(name, kind, used, heard, greedy)


def _row(
    name: str,
    kind: str,
    clips: Sequence[CorpusClip],
    heard: Sequence[SystemOutput],
    greedy: Sequence[SystemOutput],
) -> ScoreRow:
    if not clips:
        return ScoreRow(name, kind, None, None, ())
    pairs = tuple((clip.text, one.text) for clip, one in zip(clips, heard, strict=True))
    rates = error_rate(pairs), error_rate(pairs, characters=True)
    warned = 100.0 * sum(one.warned for one in heard) / len(heard)
    note = beside(heard, greedy) if kind in ("drafts", "int8") and greedy else ""
    return ScoreRow(name, kind, *rates, pairs, warned, note)


def beside(heard: Sequence[SystemOutput], greedy: Sequence[SystemOutput]) -> str:
    """How tokens and passes of a way compare with greedy decoding's."""
    same = sum(a.token_ids == b.token_ids for a, b in zip(heard, greedy, strict=True))
    passes, before = sum(a.passes for a in heard), sum(b.passes for b in greedy)
    fewer = f", {before / passes:.1f}x fewer passes" if 0 < passes < before else ""
    return f"same tokens in {same} of {len(heard)}{fewer}"


def table(rows: Sequence[ScoreRow]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| recordings | way | clips | exact | WER % (95 % interval) | CER % | said to be outside |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row.words is None or row.characters is None:
            lines.append(f"| {row.name} | {row.way} | absent | | | | |")
            continue
        words = row.words
        lines.append(
            f"| {row.name} | {row.way} | {words.num_clips} | {words.num_exact} | "
            f"{words.percent:.1f} ({words.low:.1f} to {words.high:.1f}) | "
            f"{row.characters.percent:.1f} | {row.warned:.0f} %{row.note and f'; {row.note}'} |"
        )
    return "\n".join(lines)
