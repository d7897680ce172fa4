"""The fields of a request -> what they mean here.

In: (name, text) pairs as they came. Out: a checked :class:`TranscriptionForm`, the names that
nobody here knows, and :class:`app.service.settings.Settings`. Lists come one element a field, with
``[]`` behind the name or without; numbers and switches come as text.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal, NoReturn

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from app.api.errors import ApiError
from app.service.settings import LORA_CHOICES, Settings, split_keywords
from core.checkpoint.catalog import LANGUAGES, ModelInfo
from core.plain_json import parse_json

LISTS = ("languages", "keywords", "timestamp_granularities", "include")
CHUNKING = "chunking_strategy"
TO_ENGLISH = "en"
DIARIZED = "diarized_json"
SHOWN = 80  # letters of a wrong value that an error repeats


def _chunking(value: Any) -> Any:
    """Read an object that came as JSON."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        return parse_json(value)
    return value


def _language(value: Any) -> Any:
    """Return the code of a language that was given by name or with a region."""
    if not isinstance(value, str):
        return value
    text = value.strip().lower()
    named = {name.lower(): code for code, name in LANGUAGES.items()}
    return named.get(text, text.replace("_", "-").partition("-")[0]) or None


Language = Annotated[str | None, BeforeValidator(_language)]


class VoiceActivity(BaseModel):
    """The cutting of recordings at OpenAI's service; here pauses are found in any case."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["server_vad"]
    threshold: float = Field(default=0.5, ge=0, le=1)
    prefix_padding_ms: int = Field(default=300, ge=0)
    silence_duration_ms: int = Field(default=200, ge=0)


class TranscriptionForm(BaseModel):
    """The fields of ``/v1/audio/transcriptions`` besides the file; the last six are our own."""

    model_config = ConfigDict(extra="ignore")

    model: str = ""
    language: Language = None
    languages: list[Language] = []
    prompt: str = ""
    keywords: list[str] = []
    response_format: Literal["json", "text", "srt", "vtt", "verbose_json", "diarized_json"] = "json"
    temperature: float | None = Field(default=None, ge=0, le=1)
    timestamp_granularities: list[Literal["word", "segment"]] = []
    include: list[Literal["logprobs"]] = []
    chunking_strategy: Annotated[
        Literal["auto"] | VoiceActivity | None, BeforeValidator(_chunking)
    ] = None
    stream: bool = False
    engine: Literal["eager", "compile"] = "eager"
    lora: Literal["auto", "on", "off"] = "auto"
    decoding: Literal["greedy", "speculative", "fast-draft", "beam", "sample"] | None = None
    adapter: str = ""
    prefix_text: str = ""
    channels: Literal["mixed", "speakers"] = "mixed"

    def check_together(self) -> None:
        """See that the fields fit each other.

        Raises:
            ApiError: 400, two fields that do not.
        """
        if self.timestamp_granularities and self.response_format != "verbose_json":
            raise ApiError(
                400,
                f"timestamp_granularities came with response_format {self.response_format!r}; "
                "expected 'verbose_json'",
                param="timestamp_granularities",
            )
        if self.include and self.response_format != "json":
            raise ApiError(
                400,
                f"include came with response_format {self.response_format!r}; expected 'json'",
                param="include",
            )
        if self.stream and self.response_format not in ("json", "text", DIARIZED):
            raise ApiError(
                400,
                f"stream came with response_format {self.response_format!r}; expected 'json', "
                f"'text' or {DIARIZED!r}: a stream has events of its own",
                param="stream",
            )
        if self.temperature and self.decoding not in (None, "sample"):
            raise ApiError(
                400,
                f"temperature came with decoding {self.decoding!r}; expected 'sample'",
                param="temperature",
            )

    def settings(self, model: str, info: ModelInfo | None, *, translate: bool) -> Settings:
        """Return the request as this app knows it.

        Args:
            model: the name that ``model`` stands for.
            info: what the model can do, where that is known before it is loaded.
            translate: into English instead of writing what is said.

        Returns:
            Settings, not yet checked against the model.
        """
        language = self.language or (self.languages[0] if len(self.languages) == 1 else None)
        marked = self.response_format == DIARIZED and self.channels != "speakers"
        task = "speakers" if marked else "transcribe"
        biased = split_keywords(self.prompt) if self._biases(info) else ()
        return Settings(
            model=model,
            engine=self.engine,
            lora=LORA_CHOICES[self.lora],
            adapter=self.adapter.strip(),
            task="translate" if translate else task,
            language=language,
            target_language=TO_ENGLISH if translate else None,
            keywords=", ".join(dict.fromkeys([*self.keywords, *biased])),
            decoding=self.decoding or ("sample" if self.temperature else "greedy"),
            temperature=self.temperature or Settings.temperature,
            prefix_text=self.prefix_text,
            channels=self.channels,
        )

    def unused(self, info: ModelInfo | None) -> list[str]:
        """Return the names of fields that are known but change nothing for this model."""
        found = []
        if self.prompt and not self._biases(info):
            found.append("prompt")
        if len(self.languages) > 1:
            found.append("languages")
        if isinstance(self.chunking_strategy, VoiceActivity):
            found.append(CHUNKING)
        return found

    def _biases(self, info: ModelInfo | None) -> bool:
        """Return whether the words of a prompt can favour anything."""
        return info is not None and info.keywords and self.response_format != DIARIZED


class TranslationForm(TranscriptionForm):
    """The fields of ``/v1/audio/translations`` besides the file."""

    response_format: Literal["json", "text", "srt", "vtt", "verbose_json"] = "json"


def read_form(
    kind: type[TranscriptionForm], pairs: Iterable[tuple[str, str]]
) -> tuple[TranscriptionForm, list[str]]:
    """Check the fields of a form.

    Returns:
        The form, and the names of fields that it does not have.

    Raises:
        ApiError: 400, a value that is not taken; names the field.
    """
    values: dict[str, Any] = {}
    unknown: list[str] = []
    for spelled, text in pairs:
        name = spelled.removesuffix("[]")
        if name in LISTS and not text:
            continue
        if name in LISTS:
            values.setdefault(name, []).append(text)
        elif name.startswith(CHUNKING + "["):  # an object: one field a member
            part = name[len(CHUNKING) :].strip("[]")
            parts = values.setdefault(CHUNKING, {})
            if isinstance(parts, dict):
                parts[part] = text
        elif name not in kind.model_fields:
            unknown.append(name)
        elif name in values:
            raise ApiError(400, f"{name} came more than once; send it once", param=name)
        elif text or name == "model":
            values[name] = text
    try:
        form = kind(**values)
    except ValidationError as error:
        _refuse(error)
    form.check_together()
    return form, unknown


def _refuse(error: ValidationError) -> NoReturn:
    """Name the first value that is wrong.

    Raises:
        ApiError: always.
    """
    first = error.errors(include_url=False)[0]
    name = str(first["loc"][0]) if first["loc"] else None
    came, said = repr(first["input"])[:SHOWN], first["msg"]
    raise ApiError(400, f"{name} is {came}; {said[:1].lower()}{said[1:]}", param=name) from error
