"""Parsed JSON -> a checked record: types and ranges in the settings files of a checkpoint.

In: what ``core.checkpoint.safetensors_io.read_settings`` read. Out: a pydantic model (those of
``core.checkpoint.records``), or one line that names the key, what came and what was expected. A key
that is null counts as absent, and keys that nothing reads are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from reprlib import Repr
from typing import Any, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    ValidationError,
    model_validator,
)

from core.errors import UserError
from core.model.config import ConfigError


class Section(BaseModel):
    """A JSON object. Numbers are finite, and no string passes for a number."""

    model_config = ConfigDict(
        strict=True, extra="ignore", frozen=True, allow_inf_nan=False, protected_namespaces=()
    )

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, raw: Any) -> Any:
        return {k: v for k, v in raw.items() if v is not None} if isinstance(raw, dict) else raw


Record = TypeVar("Record", bound=Section)
_SHORT = Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 2, 60, 60


def shorten(value: object) -> str:
    """Return the ``repr`` of any value, cut to fit a message of one line."""
    return _SHORT.repr(value)


def part_of(raw: Mapping[str, Any], key: str, source: str) -> Mapping[str, Any]:
    """Return the object under ``key`` of a config.json.

    Raises:
        ConfigError: it is absent or no object.
    """
    part = raw.get(key)
    if part is None:
        raise ConfigError(f"{source}: model has no {key!r}; expected a complete file")
    if not isinstance(part, Mapping):
        raise ConfigError(f"{source}: {key} is {shorten(part)}; expected an object")
    return part


def require(source: str, *rules: tuple[bool, str]) -> None:
    """See that every rule (whether it holds, what to say if not) holds.

    Raises:
        ConfigError: the first that does not.
    """
    for holds, message in rules:
        if not holds:
            raise ConfigError(f"{source}: {message}")


def validate(
    record: type[Record], raw: Mapping[str, Any], where: str, *, error: type[UserError]
) -> Record:
    """Hold ``raw`` against ``record``.

    Args:
        record: the file's schema.
        raw: the parsed object.
        where: its file, and its part if it is one, for messages.
        error: what to raise.

    Returns:
        The record, in Python types.

    Raises:
        UserError: ``error``, with one line about the first key that does not fit.
    """
    try:
        return record.model_validate(raw)
    except ValidationError as found:
        first = found.errors(include_url=False)[0]
    key = ".".join(map(str, first["loc"]))
    if first["type"] == "missing":
        raise error(f"{where} has no {key!r}; expected a complete file")
    expected = first["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
    if first["type"] == "model_type":
        expected = "expected an object"
    raise error(f"{where}: {f'{key} is ' if key else ''}{shorten(first['input'])}; {expected}")
