"""The options of a transcription, and the updates that come while it runs.

In: keyword options. Out: :class:`TranscribeOptions`, checked once; and the events of a stream.
A misspelt option is a ``TypeError``, a wrong value a ``UserError`` that says what was expected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from core.errors import UserError, check_types
from core.generation.sampling import GenerationOptions
from core.text.prompts import TASKS, Request
from core.text.transcript import Transcript

ENGINES = ("eager", "compile")
FAST_DRAFT = "fast-draft"
DRAFTED = ("speculative", FAST_DRAFT)  # the CTC head drafts, the decoder verifies
DECODINGS = ("greedy", *DRAFTED, "beam", "sample")
DEFAULT_BEAMS = 4
DEFAULT_TEMPERATURE = 0.7
MOST_EDIT_ROUNDS = 16
SPEAKERS = "speakers"
CHANNELS = ("mixed", SPEAKERS)


class OptionFields(TypedDict, total=False):
    """The keywords of ``Lab.transcribe`` and ``Lab.stream``; see :class:`TranscribeOptions`."""

    task: str
    language: str | None
    target_language: str | None
    keywords: Sequence[str]
    instruction: str | None
    prefix_text: str | None
    lora: bool | None
    adapter: str | None
    engine: str
    decoding: str
    max_new_tokens: int
    num_beams: int | None
    length_penalty: float
    temperature: float | None
    top_p: float
    seed: int
    repetition_penalty: float
    no_repeat_ngram_size: int
    edit_rounds: int
    channels: str
    ignore_eos: bool
    skip_silence: bool
    batch_size: int


@dataclass(frozen=True, kw_only=True)
class TranscribeOptions:
    """The options of one transcription.

    prefix_text: the words the recording begins with, where they are known; the transcript is what
    follows. lora: on, off, or None for on exactly if the checkpoint is made for it. adapter: one of
    those that were added to the model, by name; None for the one it came with. decoding
    "speculative" gives the greedy text in fewer passes, from drafts of the encoder's CTC head;
    "fast-draft" lets likely drafts pass as they are, which is quicker and changes some words;
    "beam" uses ``num_beams`` (4), "sample" uses ``temperature`` (0.7) and ``top_p``. edit_rounds:
    how often a model that edits a draft goes over it; 0 keeps the draft. channels "speakers": a
    stereo recording has a speaker on each channel, and they are transcribed apart. skip_silence: a
    recording in which nothing is heard gives an empty transcript instead of invented words.
    ignore_eos makes exactly ``max_new_tokens`` tokens, for measurements. batch_size: how many
    spans of a long recording run at once.
    """

    task: str = "transcribe"
    language: str | None = None
    target_language: str | None = None
    keywords: Sequence[str] = ()
    instruction: str | None = None
    prefix_text: str | None = None
    lora: bool | None = None
    adapter: str | None = None
    engine: str = "eager"
    decoding: str = "greedy"
    max_new_tokens: int = 200
    num_beams: int | None = None
    length_penalty: float = 1.0
    temperature: float | None = None
    top_p: float = 1.0
    seed: int = 0
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    edit_rounds: int = 1
    channels: str = "mixed"
    ignore_eos: bool = False
    skip_silence: bool = True
    batch_size: int = 4

    def __post_init__(self) -> None:
        check_types(self)
        for name, value, known in (
            ("task", self.task, TASKS),
            ("engine", self.engine, ENGINES),
            ("decoding", self.decoding, DECODINGS),
            ("channels", self.channels, CHANNELS),
        ):
            if value not in known:
                raise UserError(f"{name} is {value!r}; expected one of {', '.join(known)}")
        if self.batch_size < 1:
            raise UserError(f"batch_size is {self.batch_size}; expected at least 1")
        if not 0 <= self.edit_rounds <= MOST_EDIT_ROUNDS:
            raise UserError(f"edit_rounds is {self.edit_rounds}; expected 0 to {MOST_EDIT_ROUNDS}")
        if self.channels == SPEAKERS and (self.task == SPEAKERS or self.prefix_text):
            came = "prefix_text" if self.prefix_text else f"task {self.task!r}"
            raise UserError(
                f"{came} came with channels {SPEAKERS!r}, where each channel is one speaker's; "
                "expected one or the other"
            )
        if self.num_beams is not None and self.decoding != "beam":
            raise UserError(f"num_beams came with decoding {self.decoding!r}; expected 'beam'")
        if self.temperature is not None and self.decoding != "sample":
            raise UserError(f"temperature came with decoding {self.decoding!r}; expected 'sample'")
        self.generation()

    def request(self) -> Request:
        """Return what to ask of the model, in words."""
        return Request(
            task=self.task,
            language=self.language,
            target_language=self.target_language,
            keywords=tuple(word.strip() for word in self.keywords if word.strip()),
            instruction=self.instruction,
            prefix_text=(self.prefix_text or "").strip(),
        )

    def generation(self) -> GenerationOptions:
        """Return how to generate, in numbers."""
        beams = DEFAULT_BEAMS if self.num_beams is None else self.num_beams
        heat = DEFAULT_TEMPERATURE if self.temperature is None else self.temperature
        return GenerationOptions(
            max_new_tokens=self.max_new_tokens,
            num_beams=beams if self.decoding == "beam" else 1,
            length_penalty=self.length_penalty,
            temperature=heat if self.decoding == "sample" else 0.0,
            top_p=self.top_p,
            seed=self.seed,
            repetition_penalty=self.repetition_penalty,
            no_repeat_ngram_size=self.no_repeat_ngram_size,
            ignore_eos=self.ignore_eos,
            stop_loops=not self.ignore_eos,
        )


@dataclass(frozen=True)
class PhaseStarted:
    """A phase began for clip ``index``; its time follows in :class:`PhaseDone`."""

    index: int
    name: str


@dataclass(frozen=True)
class PhaseDone:
    """A phase that happens once is over for clip ``index``."""

    index: int
    name: str
    ms: float


@dataclass(frozen=True)
class PartialText:
    """More text of clip ``index``. text: all so far (beam search may still change it)."""

    index: int
    text: str
    num_tokens: int


@dataclass(frozen=True)
class Progress:
    """Progress of a long recording. total_s is None where its length is unknown."""

    index: int
    done_s: float
    total_s: float | None


@dataclass(frozen=True)
class Finished:
    """The transcript of clip ``index``; its last event."""

    index: int
    transcript: Transcript


Event = PhaseStarted | PhaseDone | PartialText | Progress | Finished
