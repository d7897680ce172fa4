"""Arguments of a command line -> recordings: folders, globs, manifests, single files.

In: paths. Out: :class:`BulkItem` rows in the order they came. A manifest is jsonl or csv with the
column ``audio_filepath`` (relative to the manifest's folder) and, where known, ``duration``,
``text``, ``offset`` and ``speaker``; other columns are passed over. With ``offset`` only the part
from there on is meant, ``duration`` seconds of it. A manifest is read whole before any work is
done: its first wrong row ends the command. No recording is opened here.
"""

from __future__ import annotations

import csv
import glob
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.text.manifest import (
    ManifestError,
    RowError,
    manifest_lines,
    manifest_text,
    parse_object,
    seconds_of_column,
)

RECORDINGS = frozenset(
    f".{kind}"
    for kind in (
        *("wav", "flac", "mp3", "ogg", "oga", "opus", "m4a", "aac", "webm", "mp4", "mkv", "mov"),
        *("aiff", "aif", "au", "caf", "w64", "amr", "g722"),
    )
)
MANIFESTS = (".jsonl", ".json", ".csv")


@dataclass(frozen=True, slots=True)
class BulkItem:
    """One recording, or a part of one.

    Attributes:
        audio_filepath: as the input names it.
        path: absolute.
        duration: seconds, where a manifest says so.
        offset: where the part begins, in seconds; None for the whole recording.
        text: what is said in it, where that is known.
        speaker: who says it, where that is known.
    """

    audio_filepath: str
    path: str
    duration: float | None = None
    offset: float | None = None
    text: str | None = None
    speaker: str | None = None


def find_items(inputs: Sequence[str]) -> list[BulkItem]:
    """Find the recordings that ``inputs`` name: folders (with all below), globs, manifests, files.

    Returns:
        One item a recording, repeated ones included.

    Raises:
        UserError: an input that is not there, a wrong manifest, or no recordings at all.
    """
    items = [item for one in inputs for item in _items_of(one)]
    if not items:
        raise UserError(
            f"no recordings in {', '.join(inputs)}; expected files named {', '.join(MANIFESTS)} "
            f"(manifests) or {', '.join(sorted(RECORDINGS))}"
        )
    return items


def _items_of(name: str) -> Iterable[BulkItem]:
    path = Path(name)
    if path.is_dir():
        return _in_folder(name)
    if path.exists():
        return read_items(path) if path.suffix.lower() in MANIFESTS else [_plain_item(name)]
    matches = sorted(glob.glob(name, recursive=True)) if glob.has_magic(name) else []
    if not matches:
        raise UserError(
            f"{name}: no such file or folder; expected a folder of recordings, a glob in quotes, "
            "or a manifest (.jsonl, .csv)"
        )
    return [item for match in matches if Path(match).is_file() for item in _items_of(match)]


def _in_folder(name: str) -> Iterator[BulkItem]:
    for folder, below, files in os.walk(name, onerror=_refuse):
        below.sort()
        for file in sorted(files):
            if Path(file).suffix.lower() in RECORDINGS and not file.startswith("."):
                yield _plain_item(os.path.join(folder, file))


def _refuse(error: OSError) -> None:
    raise UserError(
        f"{error.filename} cannot be read ({error.strerror}); expected a folder of recordings"
    ) from error


def _plain_item(name: str) -> BulkItem:
    return BulkItem(name, os.path.abspath(name))


def read_items(manifest: Path) -> list[BulkItem]:
    """Read the rows of a manifest.

    Returns:
        Its rows in order.

    Raises:
        ManifestError: it cannot be read, or its first row that is wrong.
    """
    rows = _csv_rows(manifest) if manifest.suffix.lower() == ".csv" else _json_rows(manifest)
    return [_item(raw, manifest, number) for number, raw in rows]


def _json_rows(manifest: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in manifest_lines(manifest):
        yield number, parse_object(line, manifest, number)


def _csv_rows(manifest: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a csv file, the first of which (row 1) names the columns; empty cells are absent."""
    reader = csv.DictReader(io.StringIO(manifest_text(manifest), newline=""), strict=True)
    try:
        for number, row in enumerate(reader, start=2):
            if None in row:
                raise RowError(manifest, number, "more cells than columns; quote those with commas")
            raw: dict[str, Any] = {key: value for key, value in row.items() if value}
            for key in ("duration", "offset"):
                if key in raw:
                    raw[key] = _number(raw[key])
            yield number, raw
    except csv.Error as error:
        raise ManifestError(f"{manifest}, line {reader.line_num}: not csv ({error})") from error


def _number(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell  # refused by whoever expects seconds


def _item(raw: dict[str, Any], manifest: Path, number: int) -> BulkItem:
    name = raw.get("audio_filepath")
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        came = "is missing" if name is None else f"is {name!r}"
        raise RowError(manifest, number, f"audio_filepath {came}; expected a path")
    for key in ("text", "speaker"):
        value = raw.get(key)
        if value is not None and not (isinstance(value, str) or (key == "speaker" and _id(value))):
            raise RowError(manifest, number, f"{key} is {value!r}; expected text")
    duration, offset = (
        seconds_of_column(raw, key, manifest, number) for key in ("duration", "offset")
    )
    if offset is not None and duration == 0:
        raise RowError(manifest, number, "duration is 0; expected how long the part is")
    speaker = raw.get("speaker")
    return BulkItem(
        audio_filepath=name,
        path=os.path.abspath(manifest.parent / name),
        duration=duration,
        offset=offset,
        text=raw.get("text"),
        speaker=None if speaker is None else str(speaker),
    )


def _id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
