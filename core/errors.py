"""The one kind of error whose words a caller sees.

A :class:`UserError` is a mistake of the caller's, said on one line: what came, what was expected,
what to do. Any other exception, a plain ``ValueError`` included, is this project's own fault: the
command line and the app log it in full and say so in general words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from numbers import Integral, Real
from typing import Any

_KINDS: dict[str, tuple[type, str]] = {
    "int": (Integral, "a whole number"),
    "float": (Real, "a number"),
    "bool": (bool, "true or false"),
    "str": (str, "text"),
    "Sequence[str]": (Sequence, "a list of words"),
}


class UserError(ValueError):
    """A mistake of the caller's; its message is shown word for word."""


def check_types(options: Any) -> None:
    """Hold the fields of a dataclass against its annotations: numbers, texts, lists of texts, None.

    Raises:
        UserError: the first that is of another type.
    """
    for field in fields(options):
        value, names = getattr(options, field.name), str(field.type).split(" | ")
        known = [_KINDS[name] for name in names if name != "None"]
        fits = value is None and "None" in names
        for kind, _ in known:
            is_kind = isinstance(value, kind) and (kind is bool) == isinstance(value, bool)
            if is_kind and kind is Sequence:
                is_kind = not isinstance(value, str) and all(isinstance(one, str) for one in value)
            fits = fits or is_kind
        if not fits:
            expected = " or ".join(words for _, words in known)
            raise UserError(f"{field.name} is {repr(value)[:80]}; expected {expected}")
