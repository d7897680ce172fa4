"""The checkpoints this project knows: where they are and what they can do.

In: a name, a Hub repository id, or what a folder says of itself. Out: a :class:`ModelInfo`.
Dimensions never come from here, only from a checkpoint's own ``config.json``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from core.checkpoint import records, schema
from core.checkpoint.safetensors_io import CheckpointError, read_settings
from core.checkpoint.schema import shorten
from core.errors import UserError

ASSETS = Path(__file__).resolve().parents[2] / "assets"
DESCRIPTION_FILE = "lab.json"  # optional, beside config.json: what a checkpoint says it can do
OUTSIDE = "outside"  # its key for the scale that core.transcription.out_of_domain reads

LANGUAGES = {
    "en": "English",
    "fr": "French",
    "de": "German",
    "es": "Spanish",
    "pt": "Portuguese",
    "ja": "Japanese",
    "it": "Italian",
    "zh": "Mandarin",
}


@dataclass(frozen=True)
class ModelInfo:
    """One checkpoint. source: a Hub repo id or a folder; size_bytes: weights as stored.

    languages are those it transcribes; target_languages those it translates into (from English,
    and for "en" from the others). num_beams is the model card's advice. reliable_s is how long a
    recording one pass is trusted with; longer ones are cut at pauses. commercial_use: the licence
    allows it. prefix_text: it can continue a text that was begun. instructions: the only ones that
    its text mode knows; empty where it takes any.
    """

    name: str
    source: str
    family: str
    title: str
    licence: str
    size_bytes: int | None
    parameters: int | None
    tasks: tuple[str, ...]
    languages: tuple[str, ...]
    target_languages: tuple[str, ...] = ()
    keywords: bool = False
    punctuation: bool = False
    text_mode: bool = False
    instructions: tuple[str, ...] = ()
    num_beams: int = 1
    reliable_s: float = 30.0
    notes: str = ""
    commercial_use: bool = True
    prefix_text: bool = False

    @property
    def model_type(self) -> str:
        """Return what its config.json says, by which :mod:`core.families` finds its recognizer."""
        return _MODEL_TYPES.get(self.family, "granite_speech")


_MODEL_TYPES = {
    "4.1-plus": "granite_speech_plus",
    "4.1-nar": "granite_speech_nar",
    "5.0-ctc": "granite_speech5_ctc",
}
_EU = ("en", "fr", "de", "es", "pt")
_GB = 1024**3

_SPEECH_3_3 = ModelInfo(
    name="granite-speech-3.3-2b",
    source="ibm-granite/granite-speech-3.3-2b",
    family="3.3",
    title="Granite Speech 3.3 2B",
    licence="Apache-2.0",
    size_bytes=int(5.64 * _GB),
    parameters=3_026_300_000,
    tasks=("transcribe", "translate", "instruct"),
    languages=_EU,
    target_languages=("en", "fr", "de", "es", "pt", "ja", "zh"),
    text_mode=True,
    num_beams=4,
)
_SPEECH_4_0 = ModelInfo(
    name="granite-4.0-1b-speech",
    source="ibm-granite/granite-4.0-1b-speech",
    family="4.0",
    title="Granite 4.0 1B Speech",
    licence="Apache-2.0",
    size_bytes=int(4.31 * _GB),
    parameters=2_313_200_000,
    tasks=("transcribe", "translate", "instruct"),
    languages=(*_EU, "ja"),
    target_languages=("en", "fr", "de", "es", "pt", "ja", "it", "zh"),
    keywords=True,
)
_TURBO_CTC = ModelInfo(
    name="granite-speech-5.0-470m-turboctc",
    source="ibm-granite/granite-speech-5.0-470m-turboctc",
    family="5.0-ctc",
    title="Granite Speech 5.0 470M TurboCTC",
    licence="Apache-2.0",
    size_bytes=int(0.88 * _GB),
    parameters=472_928_256,
    tasks=("transcribe",),
    languages=("en",),
    notes="An encoder with a CTC head: lower case, no punctuation, no prompt",
)

CATALOG: dict[str, ModelInfo] = {
    model_info.name: model_info
    for model_info in (
        ModelInfo(
            name="tiny",
            source=str(ASSETS / "tiny"),
            family="tiny",
            title="Bundled tiny model: voice-menu English",
            licence="CC BY-SA 4.0",
            size_bytes=None,
            parameters=None,
            tasks=("transcribe", "instruct"),
            languages=("en",),
            text_mode=True,
            instructions=("repeat", "tidy up", "write in digits", "reverse", "how many words"),
            reliable_s=8.0,
            notes="Digits, numbers, dates, letters, commands, phrases of voice menus: 446 English "
            "words; everything else is outside its domain",
        ),
        replace(
            _TURBO_CTC,
            name="tiny-ctc",
            source=str(ASSETS / "tiny-ctc"),
            title="Bundled tiny CTC model: voice-menu English",
            licence="CC BY-SA 4.0",
            size_bytes=None,
            parameters=None,
            reliable_s=8.0,
            notes="The words of the bundled tiny model by an encoder with a CTC head: quicker, and "
            "more often wrong; everything else is outside its domain",
        ),
        _SPEECH_3_3,
        replace(
            _SPEECH_3_3,
            name="granite-speech-3.3-8b",
            source="ibm-granite/granite-speech-3.3-8b",
            size_bytes=int(16.2 * _GB),
            parameters=8_682_800_000,
            title="Granite Speech 3.3 8B",
        ),
        replace(
            _SPEECH_3_3,
            name="granite-speech-3.2-8b",
            source="ibm-granite/granite-speech-3.2-8b",
            family="3.2",
            size_bytes=int(15.9 * _GB),
            parameters=8_517_600_000,
            title="Granite Speech 3.2 8B",
            languages=("en",),
            target_languages=("fr", "de", "es", "pt", "ja", "zh"),
        ),
        _SPEECH_4_0,
        replace(
            _SPEECH_4_0,
            name="granite-speech-4.1-2b",
            source="ibm-granite/granite-speech-4.1-2b",
            family="4.1",
            title="Granite Speech 4.1 2B",
            punctuation=True,
        ),
        ModelInfo(
            name="granite-speech-4.1-2b-plus",
            source="ibm-granite/granite-speech-4.1-2b-plus",
            family="4.1-plus",
            title="Granite Speech 4.1 2B Plus",
            licence="Apache-2.0",
            size_bytes=int(3.93 * _GB),
            parameters=2_111_812_956,
            tasks=("transcribe", "speakers", "timestamps"),
            languages=_EU,
            keywords=True,
            prefix_text=True,
            notes="Says who speaks, or when each word ends; lower case, no translation",
        ),
        ModelInfo(
            name="granite-speech-4.1-2b-nar",
            source="ibm-granite/granite-speech-4.1-2b-nar",
            family="4.1-nar",
            title="Granite Speech 4.1 2B NAR",
            licence="Apache-2.0",
            size_bytes=int(4.2 * _GB),
            parameters=2_254_569_820,
            tasks=("transcribe",),
            languages=_EU,
            punctuation=True,
            notes="Drafts by CTC, then edits the whole text in one pass: lower case with commas "
            "and full stops, no prompt. Audio and text share 4096 positions",
        ),
        _TURBO_CTC,
        replace(
            _TURBO_CTC,
            name="granite-speech-5.0-470m-turboctc-nc",
            source="ibm-granite/granite-speech-5.0-470m-turboctc-nc",
            title="Granite Speech 5.0 470M TurboCTC (non-commercial)",
            licence="CC-BY-NC-SA-4.0: not for commercial use",
            commercial_use=False,
        ),
    )
}

# What a checkpoint nobody described can be assumed to do, by family.
_FAMILY_LIKE = {
    "3.2": CATALOG["granite-speech-3.2-8b"],
    "3.3": CATALOG["granite-speech-3.3-2b"],
    "4.0": CATALOG["granite-4.0-1b-speech"],
    "4.1": CATALOG["granite-speech-4.1-2b"],
    "4.1-plus": CATALOG["granite-speech-4.1-2b-plus"],
    "4.1-nar": CATALOG["granite-speech-4.1-2b-nar"],
    "5.0-ctc": CATALOG["granite-speech-5.0-470m-turboctc"],
    "tiny": CATALOG["tiny"],
}


def lookup(name: str) -> ModelInfo | None:
    """Return the entry with this name or source, if the catalog has one."""
    if name in CATALOG:
        return CATALOG[name]
    return next((model_info for model_info in CATALOG.values() if model_info.source == name), None)


def describe(
    source: str,
    folder: Path,
    *,
    has_lora_adapter: bool = False,
    has_bpe_ctc_head: bool = False,
    family: str | None = None,
) -> ModelInfo:
    """Describe a checkpoint by the catalog, its own lab.json, or its family.

    An undescribed checkpoint is judged by its name, else by its parts: an adapter means 3.3, a BPE
    CTC head means 4.1, neither means 4.0.

    Args:
        source: its name, repository id or folder as it was asked for.
        folder: where its files are.
        has_lora_adapter: its config says so.
        has_bpe_ctc_head: its BPE head is there.
        family: of those whose config says it.

    Returns:
        The entry.

    Raises:
        CheckpointError: a lab.json that cannot be read.
        UserError: it names another family than the config.
    """
    known = lookup(source) or lookup(str(folder.resolve()))
    if known is not None:
        return known
    if (folder / DESCRIPTION_FILE).is_file():
        described = _described(folder / DESCRIPTION_FILE, source)
        if family not in (None, described.family):
            raise UserError(
                f"{DESCRIPTION_FILE}: family is {described.family!r}; expected {family!r}, as "
                "config.json says"
            )
        return described
    names = ("3.2", "3.3", "4.0", "4.1")
    family = family or next((f for f in names if f in Path(source).name), None)
    if family is None:
        family = "3.3" if has_lora_adapter else ("4.1" if has_bpe_ctc_head else "4.0")
    like = _FAMILY_LIKE[family]
    return replace(
        like,
        name=source,
        source=source,
        title=Path(source).name,
        licence="stated by its author",
        size_bytes=None,
        parameters=None,
        notes=f"not in the catalog; taken for one of the {family} family",
    )


def read_description(file: Path) -> dict[str, Any]:
    """Read ``lab.json``: a family, any of ModelInfo's fields, and what others read in it.

    Returns:
        The object.

    Raises:
        CheckpointError: it is no JSON object.
    """
    return read_settings(file)


def _described(file: Path, source: str) -> ModelInfo:
    raw = {key: value for key, value in read_settings(file).items() if key != OUTSIDE}
    family = raw.get("family")
    if not isinstance(family, str) or family not in _FAMILY_LIKE:
        raise CheckpointError(
            f"{file.name}: family {shorten(family)} is unknown; expected one of "
            f"{sorted(_FAMILY_LIKE)}"
        )
    allowed = set(ModelInfo.__dataclass_fields__) - {"name", "source"}
    unknown = sorted(set(raw) - allowed)
    if unknown:
        raise CheckpointError(
            f"{file.name}: unknown keys {shorten(unknown)}; expected some of {sorted(allowed)}"
        )
    stated = schema.validate(records.Description, raw, file.name, error=CheckpointError)
    changes: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in stated.model_dump(exclude_unset=True).items()
    }
    return replace(_FAMILY_LIKE[family], name=source, source=source, **changes)
