"""Settings of a request, not yet checked.

In: values of the form or of an API call. Out: :class:`Settings`, and the keywords of
``Lab.stream``: only those that the chosen task and decoding know, so that a field left over from
another task is not an error.
"""

from __future__ import annotations

from dataclasses import dataclass

from core.errors import UserError
from core.transcription.options import OptionFields

AUTOMATIC = "auto"  # the model finds the language itself
LORA_CHOICES = {"auto": None, "on": True, "off": False}
KEYWORD_SEPARATORS = str.maketrans({";": ",", "\n": ","})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One request.

    lora: on, off, or None for on exactly if the checkpoint is made for it. adapter: one that was
    added to the model, or empty for its own. keywords: separated by commas, semicolons or line
    ends. num_beams counts for decoding "beam", temperature for "sample", instruction for task
    "instruct", target_language for "translate", prefix_text and edit_rounds for models that can
    continue a text or edit a draft. channels "speakers": stereo, a speaker a channel.
    device, dtype and quantize say how the model is loaded; empty means as the app started.
    """

    model: str
    engine: str = "eager"
    lora: bool | None = None
    adapter: str = ""
    task: str = "transcribe"
    language: str | None = None
    target_language: str | None = None
    keywords: str = ""
    instruction: str = ""
    prefix_text: str = ""
    edit_rounds: int = 1
    channels: str = "mixed"
    decoding: str = "greedy"
    num_beams: int | float = 4
    temperature: float = 0.7
    max_new_tokens: int | float = 200
    device: str = ""
    dtype: str = ""
    quantize: str = ""

    def options(self) -> OptionFields:
        """Return the keyword arguments of ``Lab.stream``."""
        chosen: OptionFields = {
            "engine": self.engine,
            "lora": self.lora,
            "task": self.task,
            "decoding": self.decoding,
            "max_new_tokens": whole("max_new_tokens", self.max_new_tokens),
        }
        if self.adapter:
            chosen["adapter"] = self.adapter
        if self.decoding == "beam":
            chosen["num_beams"] = whole("num_beams", self.num_beams)
        if self.decoding == "sample":
            chosen["temperature"] = float(self.temperature)
        if self.channels != "mixed":
            chosen["channels"] = self.channels
        if self.prefix_text:
            chosen["prefix_text"] = self.prefix_text
        if self.edit_rounds != 1:
            chosen["edit_rounds"] = int(self.edit_rounds)
        if self.task == "instruct":
            chosen["instruction"] = self.instruction
            return chosen
        chosen["language"] = None if self.language == AUTOMATIC else self.language or None
        chosen["keywords"] = split_keywords(self.keywords)
        if self.task == "translate":
            chosen["target_language"] = self.target_language or None
        return chosen


def lora_choice(value: object) -> bool | None:
    """Read a key of :data:`LORA_CHOICES`.

    Returns:
        On, off, or None for automatic.

    Raises:
        UserError: it is none.
    """
    if not isinstance(value, str) or value not in LORA_CHOICES:
        raise UserError(f"lora is {repr(value)[:80]}; expected one of {', '.join(LORA_CHOICES)}")
    return LORA_CHOICES[value]


def whole(name: str, value: float | None) -> int:
    """Read a number of JSON, where 200.0 is 200.

    Returns:
        The number.

    Raises:
        UserError: it is none, or no whole one.
    """
    if (
        value is None
        or not isinstance(value, int | float)
        or isinstance(value, bool)
        or (isinstance(value, float) and not value.is_integer())
    ):
        raise UserError(f"{name} is {repr(value)[:80]}; expected a whole number")
    return int(value)


def split_keywords(text: str) -> tuple[str, ...]:
    """Split keywords typed into one field, without the empty ones."""
    parts = (text or "").translate(KEYWORD_SEPARATORS).split(",")
    return tuple(word.strip() for word in parts if word.strip())
