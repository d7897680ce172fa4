"""Inputs of a measurement that need parsing.

In: a recording that may be one of the examples; settings as a program sends them. Out: its text;
:class:`app.service.settings.Settings`.
"""

from __future__ import annotations

from pathlib import Path

from app.service.examples import FOLDER, read_examples
from app.service.settings import Settings
from core.checkpoint.schema import shorten
from core.errors import UserError, check_types
from core.plain_json import parse_json

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


def settings_of(model: str, given: object) -> Settings:
    """Parse settings that a program sent as a JSON object; none at all are the usual ones.

    Returns:
        The settings.

    Raises:
        UserError: not an object, or an unknown name or value.
    """
    try:
        raw = parse_json(given or "{}") if isinstance(given, str) else given
        raw = {} if raw is None else raw
    except ValueError as error:
        raise UserError(f"settings are not JSON ({error}); expected an object") from None
    if not isinstance(raw, dict):
        raise UserError(f"settings are {shorten(raw)}; expected an object, as engine: compile")
    raw = dict(raw)
    unknown = sorted(set(raw) - set(KNOWN))
    if unknown:
        came = ", ".join(unknown)[:80]
        raise UserError(f"settings have {came}; expected some of {', '.join(KNOWN)}")
    lora = raw.pop("lora", None)
    if lora not in (None, True, False):
        raise UserError(f"lora is {shorten(lora)}; expected true, false or null")
    if not isinstance(raw.get("adapter") or "", str):
        raise UserError(f"adapter is {shorten(raw['adapter'])}; expected its name")
    raw["adapter"] = raw.get("adapter") or ""
    settings = Settings(**{"model": model, **raw}, lora=lora)
    check_types(settings)
    return settings
