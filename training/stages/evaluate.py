"""Word error rates of checkpoints on recordings that no stage has trained on.

In: a corpus folder and checkpoints (names or folders) loaded by ``core``. Out: one row for each
test set, system (``training.stages.systems``) and checkpoint; a set whose recordings are absent is
reported as absent. Texts of other domains are there to fail, and to be said to be outside.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from training.corpus.corpus import CorpusClip, recorded_clips
from training.stages.systems import SystemOutput, system
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
DEFAULT_SYSTEMS = ("greedy", "lora-off")


@dataclass(frozen=True)
class ScoreRow:
    """One line of the table; rates are None where the recordings are absent.

    warned: percent of clips said to be outside. note: a quicker system against greedy.
    """

    name: str
    system: str
    words: ErrorRate | None
    characters: ErrorRate | None
    pairs: tuple[tuple[str, str], ...]
    warned: float = 0.0
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the row for JSON, with the transcripts that are wrong."""
        wrong = [pair for pair in self.pairs if pair[0] != pair[1]]
        return asdict(self) | {"pairs": wrong[:50]}


def evaluate(
    corpus: Path,
    models: Sequence[str],
    *,
    systems: Sequence[str] = DEFAULT_SYSTEMS,
    limit: int | None = None,
    lora_off_limit: int = 40,
) -> Iterator[ScoreRow]:
    """Transcribe every set with every system; with the adapter off only its first clips.

    Args:
        corpus: folder of the test sets.
        models: names or folders of checkpoints.
        systems: names, as :func:`training.stages.systems.system` takes them.
        limit: clips of each set, at most.
        lora_off_limit: the same where the adapter is off.

    Yields:
        A row for each set, system and checkpoint.
    """
    transcribers = {(kind, one): system(kind, one) for kind in systems for one in models}
    for name, split, speaker in SETS:
        here = recorded_clips(corpus, [split])
        clips = [clip for clip in here if speaker in (None, clip.speaker)][:limit]
        greedy: dict[str, list[SystemOutput]] = {}
        for (kind, model), transcribe in transcribers.items():
            used = clips[:lora_off_limit] if kind == "lora-off" else clips
            outputs = [transcribe(corpus / clip.audio, clip.text) for clip in used]
            if kind == "greedy":
                greedy[model] = outputs
            row = _row(name, kind, used, outputs, greedy.get(model, ()))
            yield row if len(models) == 1 else replace(row, system=f"{model}: {kind}")


def _row(
    name: str,
    kind: str,
    clips: Sequence[CorpusClip],
    outputs: Sequence[SystemOutput],
    greedy: Sequence[SystemOutput],
) -> ScoreRow:
    if not clips:
        return ScoreRow(name, kind, None, None, ())
    pairs = tuple((clip.text, one.text) for clip, one in zip(clips, outputs, strict=True))
    rates = error_rate(pairs), error_rate(pairs, characters=True)
    warned = 100.0 * sum(one.warned for one in outputs) / len(outputs)
    note = compare_with_greedy(outputs, greedy) if kind in ("drafts", "int8") and greedy else ""
    return ScoreRow(name, kind, *rates, pairs, warned, note)


def compare_with_greedy(outputs: Sequence[SystemOutput], greedy: Sequence[SystemOutput]) -> str:
    """Say how tokens and passes compare with greedy decoding's."""
    same = sum(a.token_ids == b.token_ids for a, b in zip(outputs, greedy, strict=True))
    passes, before = sum(a.passes for a in outputs), sum(b.passes for b in greedy)
    fewer = f", {before / passes:.1f}x fewer passes" if 0 < passes < before else ""
    return f"same tokens in {same} of {len(outputs)}{fewer}"


def table(rows: Sequence[ScoreRow]) -> str:
    """Write the rows as a Markdown table."""
    lines = [
        "| recordings | system | clips | exact | WER % (95 % interval) | CER % "
        "| said to be outside |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row.words is None or row.characters is None:
            lines.append(f"| {row.name} | {row.system} | absent | | | | |")
            continue
        words = row.words
        lines.append(
            f"| {row.name} | {row.system} | {words.num_clips} | {words.num_exact} | "
            f"{words.percent:.1f} ({words.low:.1f} to {words.high:.1f}) | "
            f"{row.characters.percent:.1f} | {row.warned:.0f} %{row.note and f'; {row.note}'} |"
        )
    return "\n".join(lines)
