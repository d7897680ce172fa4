"""The report of a bulk run, read from the rows it wrote.

In: the files of the finished shards. Out: :class:`BulkReport`, as JSON and in sentences, and a
manifest of the recordings that failed, to be given to ``bulk`` again. RTFx is seconds of sound over
seconds of the model's time, summed over recordings, as the Open ASR Leaderboard counts it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from core.bulk.identify import PlannedClip
from core.bulk.job import Row
from core.text.word_errors import character_errors, word_errors
from core.units import counted

KINDS_SHOWN = 10


@dataclass
class BulkReport:
    """Sums over rows. kinds: how many failed in each way; scored: those with a known text."""

    files: int = 0
    failed: int = 0
    copies: int = 0
    audio_s: float = 0.0
    model_s: float = 0.0
    warned: int = 0
    scored: int = 0
    word_errors: int = 0
    words: int = 0
    character_errors: int = 0
    characters: int = 0
    kinds: Counter[str] = field(default_factory=Counter)

    def add(self, row: Row) -> None:
        """Count a row."""
        self.files += 1
        if row["error"] is not None:
            self.failed += 1
            self.kinds[kind_of(row["error"])] += 1
            return
        if row.get("copy_of") is not None:
            self.copies += 1
        else:
            self.audio_s += row["duration"]
            self.model_s += row["time"]
        self.warned += bool(row["warnings"])
        if row["text"] is not None:
            self.scored += 1
            errors, words = word_errors(row["text"], row["pred_text"])
            self.word_errors, self.words = self.word_errors + errors, self.words + words
            errors, characters = character_errors(row["text"], row["pred_text"])
            self.character_errors += errors
            self.characters += characters

    @property
    def rtfx(self) -> float | None:
        """Return seconds of sound over seconds of the model's time."""
        return self.audio_s / self.model_s if self.model_s else None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of ``report.json``."""
        return {
            **asdict(self),
            "kinds": dict(self.kinds.most_common()),
            "hours": self.audio_s / 3600,
            "rtfx": self.rtfx,
            "wer": self.word_errors / self.words if self.words else None,
            "cer": self.character_errors / self.characters if self.characters else None,
        }

    def lines(self) -> Iterator[str]:
        """Write the report for a person."""
        yield (
            f"{counted(self.files, 'recording')}, {self.audio_s / 3600:.2f} h: "
            f"{counted(self.files - self.failed, 'text')} ({self.warned:,} with a warning), "
            f"{counted(self.failed, 'error')}"
        )
        for kind, count in self.kinds.most_common(KINDS_SHOWN):
            yield f"  {count:,} x {kind}"
        if len(self.kinds) > KINDS_SHOWN:
            yield f"  and {len(self.kinds) - KINDS_SHOWN} more kinds"
        if self.copies:
            yield f"{self.copies:,} are copies of others and cost nothing"
        if self.rtfx is not None:
            yield f"{self.rtfx:.1f} s of sound for each second of the model's time (RTFx)"
        if self.words:
            wer = 100 * self.word_errors / self.words
            cer = 100 * self.character_errors / self.characters
            yield (
                f"WER {wer:.2f} %, CER {cer:.2f} % over {self.scored:,} recordings whose text is "
                "known (case and punctuation do not count)"
            )


def kind_of(error: str) -> str:
    """Reduce an error to its kind: without the recording's name, and without its numbers."""
    text = error.split("; expected")[0].split(": ", maxsplit=1)[-1]
    return re.sub(r"\d+(?:[.,]\d+)*", "N", text)


def failures(shard: Iterable[PlannedClip], rows: Iterable[Row]) -> Iterator[str]:
    """Yield the lines of a manifest of what failed, its paths absolute."""
    paths = {
        (item.audio_filepath, item.offset, item.duration): item
        for clip in shard
        for item in (clip.item, *clip.copies)
    }
    for row in rows:
        if row["error"] is None:
            continue
        item = paths[row["audio_filepath"], row.get("offset"), row["duration"]]
        known = {**asdict(item), "audio_filepath": item.path, "error": row["error"]}
        known.pop("path")
        kept = {key: value for key, value in known.items() if value is not None}
        yield json.dumps(kept, ensure_ascii=False) + "\n"
