"""Variants: what is set against what.

In: one text a variant, "MODEL" or "MODEL,key=value,...", where "+" stands between several values of
a key: "tiny,engine=eager+compile,lora=on+off" names four. Out: frozen :class:`Variant`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any

from core import Lab, load
from core.errors import UserError
from core.loading import DTYPES
from core.transcription.options import DECODINGS, ENGINES, OptionFields, TranscribeOptions

SWITCH = {"on": True, "off": False}
MOST_BATCH = 512


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way of transcribing.

    lora: on, off, or None for the model's default; adapter: the folder of one more;
    dtype and quantize: as ``core.load`` takes them; batch: recordings in one pass at most.
    """

    model: str = "tiny"
    revision: str | None = None
    dtype: str | None = None
    quantize: str | None = None
    engine: str = "eager"
    lora: bool | None = None
    adapter: str | None = None
    decoding: str = "greedy"
    batch: int = 1
    max_new_tokens: int = 200

    def __post_init__(self) -> None:
        if not 1 <= self.batch <= MOST_BATCH:
            raise UserError(f"batch is {self.batch}; expected 1 to {MOST_BATCH}")
        if self.dtype not in (None, *DTYPES):
            raise UserError(f"dtype is {self.dtype!r}; expected one of {', '.join(DTYPES)}")
        if self.decoding == "sample":
            raise UserError("decoding is 'sample'; expected one that gives the same text each time")
        TranscribeOptions(**self.options())

    @property
    def name(self) -> str:
        """Return what is set apart from the defaults, as it is written on a command line."""
        words = [self.model]
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "model" and value != field.default:
                shown = ("on" if value else "off") if isinstance(value, bool) else value
                words.append(f"{field.name}={shown}")
        return ",".join(words)

    @property
    def weights(self) -> tuple[str, str | None, str | None, str | None]:
        """Return what decides which weights are loaded."""
        return self.model, self.revision, self.dtype, self.quantize

    def options(self) -> OptionFields:
        """Return the keywords for ``Lab.transcribe``."""
        return {
            "engine": self.engine,
            "lora": self.lora,
            "adapter": self.adapter,
            "decoding": self.decoding,
            "max_new_tokens": self.max_new_tokens,
            "batch_size": self.batch,
        }


def parse_variants(texts: Sequence[str]) -> list[Variant]:
    """Read variants as a command line names them.

    Returns:
        Each once, in order.

    Raises:
        UserError: none, an unknown key, or a value that nothing takes.
    """
    found = [variant for text in texts if text.strip() for variant in _parse(text.strip())]
    if not found:
        raise UserError("no variants came; expected at least one, as 'tiny,engine=compile'")
    return list(dict.fromkeys(found))


def _parse(text: str) -> list[Variant]:
    model, *settings = (part.strip() for part in text.split(","))
    if not model or "=" in model:
        raise UserError(f"variant {text!r} begins with no model; expected 'MODEL,key=value,...'")
    choices: dict[str, list[Any]] = {}
    known = [field.name for field in fields(Variant) if field.name != "model"]
    for setting in settings:
        key, equals, value = setting.partition("=")
        if key not in known or not equals or not value:
            raise UserError(
                f"variant {text!r} has {setting!r}; expected key=value with a key of "
                f"{', '.join(known)}"
            )
        values = [value] if key in ("adapter", "revision") else value.split("+")
        choices[key] = [_value(key, one) for one in values]
    return [
        replace(Variant(model=model), **dict(zip(choices, chosen, strict=True)))
        for chosen in product(*choices.values())
    ]


def _value(key: str, text: str) -> Any:
    if key == "lora":
        if text not in SWITCH:
            raise UserError(f"lora is {text!r}; expected on or off")
        return SWITCH[text]
    if key in ("batch", "max_new_tokens"):
        if not text.isdecimal():
            raise UserError(f"{key} is {text!r}; expected a whole number")
        return int(text)
    known = {"engine": ENGINES, "decoding": DECODINGS}.get(key)
    if known and text not in known:
        raise UserError(f"{key} is {text!r}; expected one of {', '.join(known)}")
    return text


OpenLab = Callable[[Variant], Lab]


class Labs:
    """Loaded models, one at a time: variants that share weights load them once."""

    def __init__(self, device: str | None) -> None:
        self._device = device
        self._key: tuple[str | None, ...] | None = None
        self._lab: Lab | None = None

    def open(self, variant: Variant) -> Lab:
        """Return the variant's model, with its adapter, having checked that it can run.

        Raises:
            UserError: it cannot be loaded, or cannot do what the variant asks.
        """  # noqa: DOC502  (raised by what is called)
        if self._lab is None or self._key != variant.weights:
            self._lab = self._key = None  # the last one's memory is free before the next is loaded
            self._lab = load(
                variant.model,
                device=self._device,
                dtype=variant.dtype,
                revision=variant.revision,
                quantize=variant.quantize,
            )
            self._key = variant.weights
        if variant.adapter is not None and variant.adapter not in self._lab.adapters.names:
            self._lab.add_adapter(variant.adapter, variant.adapter)
        self._lab.check(**variant.options())
        return self._lab


def runnable(variants: Sequence[Variant], open_lab: OpenLab) -> dict[Variant, str | None]:
    """Find out which variants can run here, before any of them does.

    Returns:
        Why not, by variant; None for those that can.
    """
    found: dict[Variant, str | None] = {}
    for variant in variants:
        try:
            open_lab(variant)
            found[variant] = None
        except UserError as error:
            found[variant] = str(error)
    return found
