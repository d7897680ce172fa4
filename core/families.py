"""The families of models that can be loaded, by the ``model_type`` of their config.json.

A new family is one module that ends in a :class:`Family`, and one line here.
"""

from __future__ import annotations

from typing import Any

from core.errors import UserError
from core.phases import declare_phases
from core.transcription import (
    autoregressive,
    granite_speech5,
    granite_speech_nar,
    granite_speech_plus,
)
from core.transcription.recognizer import Family

FAMILIES: dict[str, Family] = {}


def register(family: Family) -> None:
    """Make a family known to :func:`core.load`, and its phases to traces, tables and charts."""
    FAMILIES[family.model_type] = family
    declare_phases(family.phases)


def family_of(model_type: Any, source: str) -> Family:
    """Return the family of a config.json.

    Args:
        model_type: what the config says; anything, for it comes from a file.
        source: names the file in messages.

    Raises:
        UserError: no family of that name; the message lists those there are.
    """
    family = FAMILIES.get(model_type) if isinstance(model_type, str) else None
    if family is None:
        known = ", ".join(FAMILIES)
        raise UserError(f"{source}: model_type is {model_type!r}; expected one of: {known}")
    return family


for _family in (
    autoregressive.FAMILY,
    granite_speech_plus.FAMILY,
    granite_speech_nar.FAMILY,
    granite_speech_nar.FIRST_FAMILY,
    granite_speech5.FAMILY,
):
    register(_family)
