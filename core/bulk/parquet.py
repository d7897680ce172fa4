"""Rows <-> parquet, by pyarrow: an optional package, imported nowhere else.

In: rows. Out: bytes of a file, and back. Columns that a recording has no value for are null.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from core.bulk.job import Row

_SPAN = pa.struct(
    [
        ("start", pa.float64()),
        ("end", pa.float64()),
        ("text", pa.string()),
        ("confidence", pa.float64()),
        ("speaker", pa.int64()),
    ]
)
SCHEMA = pa.schema(
    [
        ("audio_filepath", pa.string()),
        ("offset", pa.float64()),
        ("duration", pa.float64()),
        ("time", pa.float64()),
        ("text", pa.string()),
        ("speaker", pa.string()),
        ("pred_text", pa.string()),
        ("words", pa.list_(_SPAN)),
        ("segments", pa.list_(_SPAN)),
        ("warnings", pa.list_(pa.string())),
        ("error", pa.string()),
        ("copy_of", pa.string()),
    ]
)


def encode_rows(rows: Sequence[Row]) -> bytes:
    """Write rows as a parquet file."""
    out = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist([_plain(row) for row in rows], schema=SCHEMA), out)
    return out.getvalue()


def _plain(row: Row) -> Row:
    """A path may hold bytes that are no text."""
    path = row["audio_filepath"].encode("utf-8", "backslashreplace").decode()
    return {**row, "audio_filepath": path}


def decode_rows(file: Path) -> list[Row]:
    """Read the rows of a parquet file."""
    rows: list[Row] = parquet.read_table(file).to_pylist()
    return rows


def count_rows(file: Path) -> int:
    """Count the rows of a parquet file; -1 where it is damaged."""
    try:
        return int(parquet.read_metadata(file).num_rows)
    except (pa.ArrowException, OSError):
        return -1
