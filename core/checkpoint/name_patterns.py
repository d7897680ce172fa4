"""PEFT's patterns of module names (``alpha_pattern``, ``rank_pattern``), matched in linear time.

In: a mapping from patterns to numbers, and a module's name. Out: the number of the first pattern
that matches the whole name or its end after a dot, as in PEFT's ``get_pattern_key``. Python's
``re`` may backtrack for ever on a pattern that a stranger wrote. Names, the usual case, are
compared here; anything else goes to the engine that pydantic brings, which cannot backtrack and
refuses what needs it (references, look-around).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Generic, TypeVar

from pydantic_core import SchemaError, SchemaValidator, core_schema

from core.checkpoint.safetensors_io import CheckpointError
from core.checkpoint.schema import shorten

Number = TypeVar("Number", int, float)
CONFIG = "adapter_config.json"
MOST, LONGEST = 16, 100  # patterns that are more than a name, and characters of one
_NAME = re.compile(r"(\.\*)?((?:\w|\\?\.)+)", re.ASCII)


class NamePatterns(Generic[Number]):
    """The patterns of one setting, in their order."""

    def __init__(self, patterns: Mapping[str, Number], setting: str) -> None:
        self._rules: list[tuple[Callable[[str], bool], Number]] = []
        complex_ones = [pattern for pattern in patterns if not _NAME.fullmatch(pattern)]
        if len(complex_ones) > MOST:
            raise CheckpointError(
                f"{CONFIG}: {setting} has {len(complex_ones)} regular expressions; expected "
                f"names, and at most {MOST} expressions"
            )
        rule: Callable[[str], bool]
        for pattern, value in patterns.items():
            name = _NAME.fullmatch(pattern)
            if name is not None:
                anywhere, characters = name[1] is not None, re.findall(r"\\\.|.", name[2])
                rule = partial(_ends_with, characters, anywhere)
            else:
                rule = _compile(pattern, setting)
            self._rules.append((rule, value))

    def value(self, name: str, default: Number) -> Number:
        """Return the number for the module ``name``, or ``default`` where no pattern matches."""
        return next((value for rule, value in self._rules if rule(name)), default)


def _ends_with(characters: list[str], anywhere: bool, name: str) -> bool:
    """Compare the end of ``name``; a plain dot stands for any character, as in the expression."""
    at = len(name) - len(characters)
    fits = at >= 0 and all(
        wanted in (".", found) or wanted == rf"\{found}"
        for wanted, found in zip(characters, name[at:], strict=True)
    )
    return fits and (anywhere or at == 0 or name[at - 1] == ".")


def _compile(pattern: str, setting: str) -> Callable[[str], bool]:
    try:
        if len(pattern) > LONGEST or "{" in pattern:
            raise SchemaError(f"expected at most {LONGEST} characters and no counted repetition")
        for whole in (pattern, rf"^(?:.*\.)?(?:{pattern})$"):  # by itself too: brackets must match
            engine = SchemaValidator(core_schema.str_schema(pattern=whole))
    except SchemaError as error:
        why = str(error).strip().splitlines()[-1].removeprefix("error: ").strip()
        raise CheckpointError(
            f"{CONFIG}: {setting} {shorten(pattern)} cannot be matched ({why}); expected module "
            "names or plain regular expressions"
        ) from error
    return engine.isinstance_python
