"""A data set: recordings and what is said in them.

In: a manifest (jsonl or csv, ``core.bulk.inputs``), or a folder of recordings with a ``.txt`` of
the same name beside each, or one ``transcripts.json`` (file name -> text). Out: :class:`DataSet`:
samples in order, and warnings of what was left out. No recording is opened here.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from core.audio.decode import load_audio
from core.audio.waveform import SAMPLE_RATE
from core.bulk.inputs import MANIFESTS, BulkItem, find_items, read_items
from core.errors import UserError
from core.plain_json import parse_json
from core.text.normalizers import normalize
from core.units import counted

TRANSCRIPTS = "transcripts.json"
NAMED = 3  # of many
MOST_BYTES = 1_000_000  # of one text
OTHER_ENCODING = "is not text in UTF-8; save it again as UTF-8"
FEWEST_WORDS = 3  # of two texts that should share one
LENIENT = ("basic", "english")  # normalisers under which they should


@dataclass(frozen=True)
class LabelledClip:
    """A recording, or a part of one, and its reference text.

    name: as the data set calls it; key: of the file as it is now, so that results of another file
    of that name are not taken for its own; offset_s and seconds: of a part.
    """

    name: str
    path: Path
    text: str
    key: str
    offset_s: float | None = None
    seconds: float | None = None

    def source(self) -> Path | Tensor:
        """Return the file, or the part's waveform [N] at 16 kHz.

        Raises:
            AudioError: no readable recording.
            UserError: the part lies outside the recording.
        """  # noqa: DOC502  (raised by what is called)
        if self.offset_s is None:
            return self.path
        begin = round(self.offset_s * SAMPLE_RATE)
        end = None if self.seconds is None else begin + round(self.seconds * SAMPLE_RATE)
        part = load_audio(self.path)[begin:end]
        if part.numel() == 0:
            raise UserError(f"{self.name}: the part at {self.offset_s} s is outside the recording")
        return part


@dataclass(frozen=True)
class DataSet:
    """name: of the folder or file; warnings: what was left out, and what makes rates doubtful."""

    name: str
    samples: tuple[LabelledClip, ...]
    warnings: tuple[str, ...]


def read_data(source: Path, limit: int | None = None) -> DataSet:
    """Find the recordings with a text.

    Args:
        source: a manifest or a folder.
        limit: the first so many of them.

    Returns:
        The data set.

    Raises:
        UserError: nothing there, a wrong manifest, a text that cannot be read, or no recording
            with a text.
    """
    warnings = list[str]()
    if source.is_dir():
        items = find_items([str(source)])
        texts = _texts_beside(source, items, warnings)
    elif source.suffix.lower() in MANIFESTS and source.is_file():
        items = read_items(source)
        texts = [item.text for item in items]
    else:
        raise UserError(f"{source}: expected a folder, or a manifest ({', '.join(MANIFESTS)})")
    samples, missing, silent, seen = list[LabelledClip](), list[str](), list[str](), set[str]()
    for item, text in zip(items, texts, strict=True):
        if text is None:
            silent.append(_name(item, source))
        elif (key := _key(item)) is None:
            missing.append(_name(item, source))
        elif key not in seen:
            seen.add(key)
            name = _name(item, source)
            part = (item.offset, item.duration) if item.offset is not None else (None, None)
            samples.append(LabelledClip(name, Path(item.path), text, key, *part))
    twice = len(items) - len(missing) - len(silent) - len(samples)
    warnings += named(silent, "recording", "without a text, left out")
    warnings += named(missing, "text", "without a recording, left out")
    if twice:
        warnings.append(f"{counted(twice, 'row')} left out, whose recording came before")
    if not samples:
        raise UserError(
            f"{source} has no recording with a text ({'; '.join(warnings) or 'it is empty'}); "
            f"expected a .txt beside each recording, {TRANSCRIPTS}, or a manifest's column text"
        )
    return DataSet(source.name, tuple(samples[:limit]), tuple(warnings))


def doubts(samples: Sequence[LabelledClip], normalizer: str) -> list[str]:
    """Say what makes the rates of these texts doubtful under a normaliser.

    Returns:
        Warnings; none where all is well.
    """
    found = list[str]()
    for why in DOUBTS:
        names = [one.name for one in samples if DOUBTS[why](one.text, normalizer)]
        found += named(names, "text", why)
    return found


def doubts_of(text: str, normalizer: str) -> list[str]:
    """Return those of :data:`DOUBTS` that hold for one text."""
    return [why for why, holds in DOUBTS.items() if holds(text, normalizer)]


def share_no_word(text: str, heard: str) -> bool:
    """Return whether a text is so unlike its reference that it may be that of another recording."""
    basic, english = ([normalize(one, name).split() for one in (text, heard)] for name in LENIENT)
    long = min(map(len, basic)) >= FEWEST_WORDS
    return long and all(set(said).isdisjoint(got) for said, got in (basic, english))


def _foreign(text: str) -> bool:
    letters = [one for one in text if one.isalpha()]
    return sum(ord(one) > 0x24F for one in letters) > len(letters) / 2


# What makes the rates of a text doubtful, and whether that holds under a normaliser.
DOUBTS: dict[str, Callable[[str, str], bool]] = {
    "empty once normalised, so that all that is written there is an error": lambda text, name: (
        not normalize(text, name)
    ),
    "not in Latin letters, for which 'english' is not meant": lambda text, name: (
        name == "english" and _foreign(text)
    ),
    "without spaces between words, so that CER says more than WER": lambda text, _: (
        _foreign(text) and len(text.split()) == 1
    ),
}


def _texts_beside(folder: Path, items: Sequence[BulkItem], warnings: list[str]) -> list[str | None]:
    """Return each recording's text, from ``transcripts.json`` or its own .txt."""
    listed: dict[str, str] = {}
    file = folder / TRANSCRIPTS
    if file.is_file():
        try:
            listed = parse_json(read_text(file))
        except ValueError as error:
            raise UserError(f"{file} cannot be read ({error}); expected JSON") from error
        if not isinstance(listed, dict) or not all(isinstance(t, str) for t in listed.values()):
            raise UserError(f"{file} holds something else; expected an object: file name -> text")
    used, texts = set[str](), list[str | None]()
    for item in items:
        path = Path(item.path)
        name = path.relative_to(os.path.abspath(folder)).as_posix() if listed else ""
        beside = path.with_suffix(".txt")
        if name in listed:
            used.add(name)
            texts.append(listed[name])
        else:
            texts.append(read_text(beside).strip() if beside.is_file() else None)
            used.add(str(beside))
    alone = [p.name for p in sorted(folder.rglob("*.txt")) if os.path.abspath(p) not in used]
    alone += [name for name in listed if name not in used]
    warnings += named(alone, "text", "without a recording, left out")
    return texts


def read_text(file: Path) -> str:
    """Read UTF-8 (with or without a byte order mark), or UTF-16 with one.

    Returns:
        The text.

    Raises:
        UserError: it cannot be read, is too long for one recording, or is in another encoding.
    """
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}); expected a text") from error
    if len(raw) > MOST_BYTES and file.name != TRANSCRIPTS:
        raise UserError(f"{file} has {len(raw):,} bytes; expected the text of one recording")
    utf16 = raw.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        text = raw.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{file} {OTHER_ENCODING}") from error
    if "\0" in text:  # UTF-16 without a byte order mark
        raise UserError(f"{file} {OTHER_ENCODING}")
    return text


def _key(item: BulkItem) -> str | None:
    try:
        facts = Path(item.path).stat()
    except (OSError, ValueError):
        return None
    part = (item.offset, item.duration) if item.offset is not None else None
    whole = repr((item.path, facts.st_size, facts.st_mtime_ns, part))
    return hashlib.sha256(whole.encode("utf-8", "backslashreplace")).hexdigest()[:16]


def _name(item: BulkItem, source: Path) -> str:
    name = item.audio_filepath
    if source.is_dir():
        name = Path(name).relative_to(source).as_posix()
    return name if item.offset is None else f"{name} at {item.offset:g} s"


def named(names: Sequence[str], thing: str, what: str) -> list[str]:
    """Return one warning with a number and the first few names; none where there are no names."""
    if not names:
        return []
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return [f"{counted(len(names), thing)} {what}: {', '.join(names[:NAMED])}{more}"]
