"""A model's description, before and after it is loaded.

In: a name, the catalog, a loaded Lab. Out: :class:`ModelSummary`, plain values that any thread may
read. Before an unknown checkpoint is loaded nothing is promised for it: its summary says so.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from app.service.settings import Settings
from core import Lab
from core.checkpoint.catalog import ModelInfo, lookup
from core.errors import UserError
from core.families import FAMILIES
from core.transcription.autoregressive import AutoregressiveRecognizer
from core.transcription.options import DECODINGS, DRAFTED, FAST_DRAFT

DEFAULTS = Settings(model="")
OPTIONAL = (
    *("lora", "adapter", "language", "target_language", "keywords", "instruction"),
    *("prefix_text", "edit_rounds", "num_beams", "temperature", "quantize"),
)


@dataclass(frozen=True, kw_only=True)
class ModelSummary:
    """One model. known: its abilities are certain. has_adapter: None where that is not known yet.

    adapters: names of those that were added to it here. tasks, languages, target_languages and
    keywords bound what may be asked of it, and prefix_text whether a text can be continued;
    commercial_use: its licence allows it. text_mode says whether it answers text, and instructions
    which ones alone, empty for any; size_bytes counts its weights as stored. decodings,
    keyword_decodings (those that follow keywords without a prompt), edits (a draft, in rounds),
    autoregressive, takes_adapters and quantises come from its family.
    """

    name: str
    source: str
    title: str
    licence: str
    size_bytes: int | None
    parameters: int | None
    tasks: tuple[str, ...]
    languages: tuple[str, ...]
    target_languages: tuple[str, ...]
    keywords: bool
    text_mode: bool
    has_adapter: bool | None
    notes: str
    known: bool
    loaded: bool
    device: str | None = None
    dtype: str | None = None
    adapters: tuple[str, ...] = ()
    commercial_use: bool = True
    prefix_text: bool = False
    instructions: tuple[str, ...] = ()
    decodings: tuple[str, ...] = DECODINGS
    keyword_decodings: tuple[str, ...] = ()
    edits: bool = False
    autoregressive: bool = True
    takes_adapters: bool = True
    quantises: bool = True

    @property
    def has_switch(self) -> bool:
        """Return whether there may be an adapter to switch."""
        return self.has_adapter is not False or bool(self.adapters)

    def decodings_of(self, task: str) -> tuple[str, ...]:
        """Return the decodings of a task: only the decoder writes marks of speakers and times."""
        marked = task in ("speakers", "timestamps")
        return tuple(one for one in self.decodings if not (marked and one == FAST_DRAFT))

    def shown(self, task: str, decoding: str) -> frozenset[str]:
        """Return the names of those optional settings that a request of this kind has."""
        spoken = task in ("transcribe", "translate")
        there = {
            "lora": self.has_switch,
            "adapter": bool(self.adapters),
            "language": spoken and len(self.languages) > 1,
            "target_language": task == "translate",
            "keywords": (spoken and self.keywords) or decoding in self.keyword_decodings,
            "instruction": task == "instruct",
            "prefix_text": self.prefix_text and decoding not in DRAFTED,
            "edit_rounds": self.edits,
            "num_beams": decoding == "beam",
            "temperature": decoding == "sample",
            "quantize": self.quantises,
        }
        return frozenset(name for name, is_there in there.items() if is_there)

    def fit(self, settings: Settings) -> Settings:
        """Return the settings that the page shows for this model, defaults for what it hides."""
        task = settings.task if settings.task in self.tasks else self.tasks[0]
        offered = self.decodings_of(task)
        decoding = settings.decoding if settings.decoding in offered else offered[0]
        shown = self.shown(task, decoding)
        hidden = {name: getattr(DEFAULTS, name) for name in OPTIONAL if name not in shown}
        return replace(settings, task=task, decoding=decoding, **hidden)

    def check_question(self, asked: str) -> None:
        """See that the text mode knows what is asked of it.

        Raises:
            UserError: it knows a few instructions only, and this is none of them.
        """
        known = self.instructions
        if known and not asked.strip().lower().startswith(known):
            raise UserError(
                f"{self.title} cannot answer {asked.strip()[:80]!r}: it knows {', '.join(known)}; "
                "choose a Granite Speech 3.3 model for any other question"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of the API name ``/models``."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}


def summary_of_name(name: str) -> ModelSummary:
    """Describe a model that is not loaded: from the catalog, or promising nothing."""
    model_info = lookup(name)
    if model_info is not None:
        # A text mode is what the 3.x models have, whose base is kept whole under an adapter.
        return _card(name, model_info, has_adapter=model_info.text_mode, known=True)
    return ModelSummary(
        name=name,
        source=name,
        title=Path(name).name or name,
        licence="stated by its author",
        size_bytes=None,
        parameters=None,
        tasks=("transcribe", "instruct"),
        languages=(),
        target_languages=(),
        keywords=False,
        text_mode=False,
        has_adapter=None,
        notes="what it can do is read from its files when it is first used",
        known=False,
        loaded=False,
    )


def summary_of_lab(name: str, lab: Lab) -> ModelSummary:
    """Describe a loaded model."""
    return _card(
        name,
        lab.model_info,
        has_adapter=lab.has_adapter,
        known=True,
        size_bytes=lab.files.num_bytes,
        loaded=True,
        device=str(lab.device),
        dtype=str(lab.dtype).removeprefix("torch."),
    )


def _card(
    name: str, model_info: ModelInfo, *, size_bytes: int | None = None, **rest: Any
) -> ModelSummary:
    family = FAMILIES[model_info.model_type]
    recognizer = family.recognizer
    return ModelSummary(
        name=name,
        source=model_info.source,
        title=model_info.title,
        licence=model_info.licence,
        size_bytes=model_info.size_bytes or size_bytes or stored_bytes(Path(model_info.source)),
        parameters=model_info.parameters,
        tasks=model_info.tasks,
        languages=model_info.languages,
        target_languages=model_info.target_languages,
        keywords=model_info.keywords,
        text_mode=model_info.text_mode,
        instructions=model_info.instructions,
        notes=model_info.notes,
        commercial_use=model_info.commercial_use,
        prefix_text=model_info.prefix_text,
        decodings=recognizer.decodings,
        keyword_decodings=recognizer.keyword_decodings,
        edits=recognizer.edits,
        autoregressive=issubclass(recognizer, AutoregressiveRecognizer),
        takes_adapters=family.lora,
        quantises=family.quantize is not None,
        **({"loaded": False} | rest),
    )


def stored_bytes(folder: Path) -> int | None:
    """Sum the bytes of the safetensors files in ``folder``; None where there are none."""
    if not folder.is_dir():
        return None
    return sum(file.stat().st_size for file in folder.glob("*.safetensors")) or None
