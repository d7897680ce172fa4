"""The recordings of a fine-tuning run: read, checked, and divided into training and dev rows.

In: the manifests of a run and the model. Out: :class:`Material`. Which rows are for validation
depends on the rows alone, so a resumed run divides them alike.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from core.lab import Lab
from core.text.manifest import ManifestError
from core.text.word_errors import error_rate
from training.corpus.manifest import (
    DEV,
    TRAIN,
    ManifestRow,
    read_manifest,
    with_splits,
)
from training.finetune.data import waveform_of
from training.finetune.manifest_check import check_rows
from training.finetune.manifest_score import transcribe_rows
from training.finetune.options import FinetuneOptions
from training.finetune.row_schedule import Schedule, Source

DEV_ONE_IN = 10
LEAD_ROWS = 4
NEW, OLD = "new", "earlier"


@dataclass(frozen=True)
class Material:
    """new and keep: rows to train on; dev: rows to validate with, by name ("new", "earlier")."""

    new: Source
    keep: Source | None
    dev: dict[str, list[ManifestRow]]
    max_seconds: float

    def schedule(self, options: FinetuneOptions) -> Schedule:
        """Order the rows for training."""
        return Schedule(
            self.new,
            self.keep,
            size=options.size,
            keep_share=options.keep_share,
            seed=options.seed,
        )

    def score(self, lab: Lab, adapter: str | None) -> dict[str, float]:
        """Compute word error rates in percent of the dev rows, by name."""
        return {
            name: error_rate(
                transcribe_rows(lab, rows, adapter, max_seconds=self.max_seconds)
            ).percent
            for name, rows in self.dev.items()
            if rows
        }

    def lead_rows(self) -> list[ManifestRow]:
        """Return a few rows, of what the model knows already where there are such."""
        source = self.keep or self.new
        return list(source.rows[:LEAD_ROWS])

    def summary(self) -> str:
        """Write one line for a person."""
        parts = [f"{len(self.new.rows)} rows ({sum(self.new.seconds) / 60:.1f} min) to train on"]
        if self.keep is not None:
            parts.append(f"{len(self.keep.rows)} of the earlier domain")
        parts += [f"{len(rows)} {name} rows for validation" for name, rows in self.dev.items()]
        return ", ".join(parts)


def gather(lab: Lab, options: FinetuneOptions) -> Material:
    """Read the manifests and check every row that will be used.

    Returns:
        The rows, checked.

    Raises:
        ManifestError: a row that cannot be trained on, or nothing to train on.
    """
    train, dev = divide(read_manifest(options.data))
    if options.dev is not None:
        train, dev = [*train, *dev], _of_split(read_manifest(options.dev), DEV)
    if not train:
        raise ManifestError(f"{options.data} has no rows to train on; expected at least two")
    check_ctc = "encoder" in options.plan.parts and options.characters > 0
    limit = min(options.max_seconds, lab.max_audio_s)
    new = Source(train, check_rows(train, lab, check_ctc=check_ctc, max_seconds=limit))
    dev = dev[: options.dev_limit]
    check_rows(dev, lab, check_ctc=False, max_seconds=limit)
    keep, named = None, {NEW: dev}
    if options.keep is not None:
        old, old_dev = divide(read_manifest(options.keep))
        keep = Source(old, check_rows(old, lab, check_ctc=check_ctc, max_seconds=limit))
        named[OLD] = old_dev[: options.dev_limit]
        check_rows(named[OLD], lab, check_ctc=False, max_seconds=limit)
    return Material(new, keep, named, limit)


def divide(rows: Sequence[ManifestRow]) -> tuple[list[ManifestRow], list[ManifestRow]]:
    """Divide rows into training and dev: by split where one is "dev", else one in ten.

    Rows of any other split are left out.

    Returns:
        Training rows and dev rows.
    """
    dev = with_splits(rows, [DEV])
    train = with_splits(rows, [TRAIN, None])
    if dev or len(train) < 2:
        return train, dev
    marks = {row: zlib.crc32(f"{row.audio.name}/{row.start}/{row.text}".encode()) for row in train}
    count = max(1, len(train) // DEV_ONE_IN)
    chosen = set(sorted(train, key=lambda row: (marks[row], row.number))[:count])
    return [r for r in train if r not in chosen], [r for r in train if r in chosen]


def _of_split(rows: Sequence[ManifestRow], name: str) -> list[ManifestRow]:
    """Select the rows of a split, or all of them where none has it."""
    return with_splits(rows, [name]) or list(rows)


def answer_lead(lab: Lab, rows: Sequence[ManifestRow]) -> str:
    """Find what the model itself puts between the prompt and a text.

    Families differ, and a template does not say; the one that makes given texts likelier wins.

    Returns:
        Nothing, or a space.
    """
    tokenizer = lab.tokenizer
    assert tokenizer is not None
    scores = {"": 0.0, " ": 0.0}
    for row in rows:
        waveform = waveform_of(row)
        for lead in scores:
            ids = tokenizer.encode_continuation(lead + row.text)[:1]
            scores[lead] += float(
                lab.logits_along(waveform, ids)[0].log_softmax(-1)[ids[0]] if ids else 0.0
            )
    return max(scores, key=lambda lead: scores[lead])
