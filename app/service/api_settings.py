"""Inputs of a measurement that need parsing.

In: a recording that may be one of the examples; settings as a program sends them. Out: its text;
:class:`app.service.settings.Settings`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from app.service.examples import FOLDER, read_examples
from app.service.settings import Settings
from core.errors import UserError, check_types

KNOWN = (
    *("engine", "lora", "adapter", "decoding", "model", "dtype", "quantize", "device"),
    "max_new_tokens",
)


def known_text(recording: Path) -> str | None:
    """Return the text of a recording that is one of the examples (a page copies them)."""
    examples = {Path(example.path).name: example for example in read_examples(FOLDER)}
    found = examples.get(recording.name)
    if found is None or Path(found.path).read_bytes() != recording.read_bytes():
        return None
    return found.text


def settings_of(model: str, given: str | dict[str, Any]) -> Settings:
    """Parse settings that a program sent as a JSON object.

    Returns:
        The settings.

    Raises:
        UserError: not an object, or an unknown name or value.
    """
    try:
        raw = json.loads(given or "{}") if isinstance(given, str) else dict(given)
    except ValueError as error:
        raise UserError(f"settings are not JSON ({error}); expected an object") from None
    if not isinstance(raw, dict):
        raise UserError(f"settings are {repr(raw)[:80]}; expected an object, as engine: compile")
    unknown = sorted(set(raw) - set(KNOWN))
    if unknown:
        came = ", ".join(unknown)[:80]
        raise UserError(f"settings have {came}; expected some of {', '.join(KNOWN)}")
    lora = raw.pop("lora", None)
    if lora not in (None, True, False):
        raise UserError(f"lora is {lora!r}; expected true, false or null")
    if not isinstance(raw.get("adapter") or "", str):
        raise UserError(f"adapter is {raw['adapter']!r}; expected its name")
    raw["adapter"] = raw.get("adapter") or ""
    settings = Settings(**{"model": model, **raw}, lora=lora)
    check_types(settings)
    return settings
