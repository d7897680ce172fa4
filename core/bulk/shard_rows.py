"""Rows of a shard <-> its file, jsonl or parquet.

In: rows. Out: a file that is whole or not there. Parquet needs the package pyarrow.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from core.bulk.job import Row
from core.errors import UserError
from core.saving import write_whole

PARQUET = ".parquet"


def check_format(form: str) -> None:
    """See that a format can be written here.

    Raises:
        UserError: parquet without pyarrow.
    """
    if f".{form}" == PARQUET:
        _parquet()


def write_rows(file: Path, rows: Sequence[Row]) -> None:
    """Write a shard's file, whole or not at all."""
    if file.suffix == PARQUET:
        data = _parquet().encode_rows(rows)
    else:
        lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
        data = "".join(lines).encode("utf-8", "backslashreplace")  # a path may be no text
    write_whole(file, data)


def read_rows(file: Path) -> Iterator[Row]:
    """Yield the rows of a shard's file."""
    if file.suffix == PARQUET:
        yield from _parquet().decode_rows(file)
        return
    with file.open("rb") as lines:
        for line in lines:
            yield json.loads(line)


def count_rows(file: Path) -> int:
    """Count the rows of a shard's file; -1 where it is damaged."""
    if file.suffix == PARQUET:
        return int(_parquet().count_rows(file))
    count, last = 0, b"\n"
    with file.open("rb") as data:
        while block := data.read(2**20):
            count, last = count + block.count(b"\n"), block[-1:]
    return count if last == b"\n" else -1


def _parquet() -> Any:
    try:
        return import_module("core.bulk.parquet")
    except ImportError as error:
        raise UserError(
            "parquet needs the package pyarrow, which is not installed; expected --format jsonl, "
            "or pip install -r requirements-cluster.txt first"
        ) from error
