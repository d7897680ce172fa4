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


LONGEST = 1_000  # letters of a message; what others wrote into a file may be much longer


class UserError(ValueError):
    """A mistake of the caller's; its message, one line of bounded length, is shown as it is."""

    def __init__(self, message: str = "") -> None:
        """Take the message, on one line; of a longer one the middle is left out."""
        line = " ".join(str(message).splitlines())
        if len(line) > LONGEST:
            line = f"{line[: LONGEST - 303]}...{line[-300:]}"  # how it ends is what to do
        super().__init__(line)


def check_types(options: Any) -> None:
    """Hold the fields of a dataclass against its annotations: numbers, texts, lists of texts, None.

    Fields of other types are left to whoever made them.

    Raises:
        UserError: the first that is of another type.
    """
    for field in fields(options):
        value, names = getattr(options, field.name), str(field.type).split(" | ")
        known = [_KINDS[name] for name in names if name in _KINDS]
        if not known:
            continue
        fits = value is None and "None" in names
        for kind, _ in known:
            is_kind = isinstance(value, kind) and (kind is bool) == isinstance(value, bool)
            if is_kind and kind is Sequence:
                is_kind = not isinstance(value, str) and all(isinstance(one, str) for one in value)
            fits = fits or is_kind
        if not fits:
            expected = " or ".join(words for _, words in known)
            raise UserError(f"{field.name} is {repr(value)[:80]}; expected {expected}")
