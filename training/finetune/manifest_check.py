"""A manifest's recordings and texts, looked at before anything is trained on them.

In: rows, and where it matters the checkpoint they are meant for. Out: seconds of every row, or the
first problem; and the report of ``python -m training manifest check``, which names all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.audio.waveform import SAMPLE_RATE, is_silent
from core.lab import Lab
from core.model.ctc import label_of
from core.text.manifest import ManifestError, RowError
from training.corpus.manifest import MAX_SECONDS, ManifestRow, problems_of
from training.finetune.data import waveform_of

SHOWN = 20  # problems that are written out


@dataclass(frozen=True)
class Report:
    """The contents of a manifest. problems: rows that cannot be used; notes: rows that look odd."""

    rows: int
    seconds: float
    longest: float
    speakers: dict[str, int]
    languages: dict[str, int]
    licences: dict[str, int]
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """Write the report for a person."""
        yield f"{self.rows} usable rows, {self.seconds / 3600:.2f} h, longest {self.longest:.1f} s"
        for name, counts in (
            ("speakers", self.speakers),
            ("languages", self.languages),
            ("licences", self.licences),
        ):
            said = ", ".join(f"{key} ({count})" for key, count in counts.items())
            yield f"{len(counts)} {name}: {said}"
        for name, found in (("problems", self.problems), ("notes", self.notes)):
            yield f"{len(found)} {name}"
            yield from (f"  {one}" for one in found[:SHOWN])
            if len(found) > SHOWN:
                yield f"  and {len(found) - SHOWN} more"


def check_text(row: ManifestRow, lab: Lab, *, check_ctc: bool) -> None:
    """See that a model can write a row's text.

    Args:
        row: the row.
        lab: the model.
        check_ctc: whether the encoder's CTC head has to spell it too.

    Raises:
        RowError: characters that its tokenizer or its CTC head does not have.
    """
    tokenizer = lab.tokenizer
    if tokenizer is None:
        raise row.error(f"{lab.files.source} has no tokenizer.json; nothing can be written")
    found = tokenizer.specials_in(row.text)
    if found:
        raise row.error(f"the text contains {found[0]!r}, which the model reserves; remove it")
    back = tokenizer.decode(tokenizer.encode_continuation(row.text))
    if back.strip() != row.text:
        lost = sorted(set(row.text) - set(back)) or [row.text]
        raise row.error(
            f"the tokenizer of {lab.model_info.name} has no {lost[0]!r}; "
            "expected a text it can write"
        )
    if check_ctc:
        lacking = characters_without_label(row.text, lab.config.encoder.output_dim)
        if lacking:
            raise row.error(
                f"the character {lacking[0]!r} is outside the alphabet of the CTC head that is "
                "trained with the encoder; leave --train encoder out, or spell it differently"
            )


def characters_without_label(text: str, num_labels: int) -> list[str]:
    """Find the characters of a text that a CTC head of ``num_labels`` labels lacks."""
    labels = {character: label_of(character) for character in text}
    return sorted(c for c, label in labels.items() if label is None or label >= num_labels)


def check_rows(
    rows: Sequence[ManifestRow], lab: Lab, *, check_ctc: bool, max_seconds: float
) -> list[float]:
    """Check every row and read its recording.

    Args:
        rows: of a manifest.
        lab: the model they are for.
        check_ctc: whether its CTC head is trained too.
        max_seconds: the longest clip allowed.

    Returns:
        Seconds of every row.

    Raises:
        ManifestError: the first row that cannot be trained on.
    """
    seconds = []
    for row in rows:
        check_text(row, lab, check_ctc=check_ctc)
        seconds.append(waveform_of(row, max_seconds).shape[0] / SAMPLE_RATE)
    return seconds


def inspect(file: Path, lab: Lab | None = None, max_seconds: float = MAX_SECONDS) -> Report:
    """Look at every row of a manifest, its recording included.

    Returns:
        What it holds.

    Raises:
        ManifestError: the manifest itself cannot be read.
    """
    rows, problems = problems_of(file)
    good, total, longest = [], 0.0, 0.0
    notes = list(_doubles(rows))
    for row in rows:
        try:
            samples = waveform_of(row, max_seconds)
            if lab is not None:
                check_text(row, lab, check_ctc=False)
        except RowError as error:
            problems.append(error)
            continue
        if is_silent(samples):
            notes.append(str(row.error("the recording is silent")))
        if lab is not None:
            for character in characters_without_label(row.text, lab.config.encoder.output_dim):
                notes.append(str(row.error(f"{character!r} is not in the CTC alphabet")))
        seconds = samples.shape[0] / SAMPLE_RATE
        good.append(row)
        total, longest = total + seconds, max(longest, seconds)
    if not rows and not problems:
        raise ManifestError(f"{file} has no rows; expected one JSON object a line")
    return Report(
        rows=len(good),
        seconds=total,
        longest=longest,
        speakers=_counts(row.speaker for row in good),
        languages=_counts(row.language for row in good),
        licences=_counts(row.licence for row in good),
        problems=tuple(str(error) for error in sorted(problems, key=lambda error: error.number)),
        notes=tuple(notes),
    )


def _doubles(rows: Sequence[ManifestRow]) -> Iterator[str]:
    """Recordings that stand in the manifest twice with different texts."""
    seen: dict[tuple[Path, float | None, float | None], ManifestRow] = {}
    for row in rows:
        first = seen.setdefault((row.audio, row.start, row.end), row)
        if first.text != row.text:
            yield str(row.error(f"the recording of row {first.number} with another text"))


def _counts(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())
