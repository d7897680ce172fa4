"""The seam for model families: what a family declares, and what recognises speech for it.

In: a checkpoint's files. Out: a :class:`Recognizer`, which owns everything that differs between
families: features, stages, decoding, words. :mod:`core.transcription.transcribe` owns what they
share: reading, silence, events, the transcript. ``core/families.py`` lists the families.

Shapes: B clips, T frames that the CTC head labels, V labels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from core.checkpoint.catalog import ModelInfo
from core.checkpoint.hub import CheckpointFiles
from core.checkpoint.weights import LoadReport
from core.engine.compiling import CompileLedger
from core.errors import UserError
from core.generation.greedy import Hypothesis
from core.model import ctc
from core.model.features import Features
from core.model.lora import switch
from core.phases import PhaseClock
from core.text.tokenizer import TextDecoder, Tokenizer
from core.transcription.clip import Clip
from core.transcription.options import PhaseDone, PhaseStarted, TranscribeOptions


class NamedEngine(Protocol):
    """Stages of one family in one form; only the name ("eager", "compile") is common to all."""

    @property
    def name(self) -> str:
        """Return the name that requests choose it by."""


E = TypeVar("E", bound=NamedEngine)


@dataclass(frozen=True)
class Checkpoint:
    """The loaded components, before any request."""

    files: CheckpointFiles
    config: Any
    model: Any
    report: LoadReport
    tokenizer: Tokenizer | None
    model_info: ModelInfo
    device: torch.device
    dtype: torch.dtype
    ledger: CompileLedger

    def lora_switch(self, lora: bool | None, batch: int) -> Tensor | None:
        """Return the adapter switch [B, 1, 1] for a state, or None where there is none."""
        return None if lora is None else switch([lora] * batch, like=self.like)

    @property
    def like(self) -> Tensor:
        """Return an empty tensor of the model's dtype on its device."""
        return torch.empty(0, dtype=self.dtype, device=self.device)

    def required_tokenizer(self) -> Tokenizer:
        """Return the tokenizer.

        Raises:
            UserError: the checkpoint has none; it can still make token ids.
        """
        if self.tokenizer is None:
            raise UserError(
                f"{self.files.folder} has no tokenizer.json; expected the checkpoint's own, "
                "without which ids cannot become text"
            )
        return self.tokenizer


@dataclass(frozen=True)
class Encoded:
    """A batch after its encoder.

    Attributes:
        ctc_logits: [B, T, V].
        lengths: rows of them that are real, for each clip.
        output: the family's own.
    """

    ctc_logits: Tensor
    lengths: list[int]
    output: Any = None


@dataclass(frozen=True)
class RecognitionRequest:
    """One call: who recognises, with which stages, how. lora: on, off, or None without one."""

    recognizer: Recognizer[Any]
    engine: NamedEngine
    options: TranscribeOptions
    lora: bool | None

    def lora_switch(self, batch: int) -> Tensor | None:
        """Return the adapter switch [B, 1, 1], or None for a checkpoint without an adapter."""
        return self.recognizer.checkpoint.lora_switch(self.lora, batch)


@dataclass(frozen=True)
class EncodedClips:
    """Clips with speech in them, and which row of the encoded batch each one is."""

    clips: list[Clip]
    rows: list[int]
    encoded: Encoded


Recognition = PhaseStarted | PhaseDone | list[Hypothesis]


class Recognizer(ABC, Generic[E]):
    """Speech recognition by one family, whose stages are an ``E``.

    Attributes:
        checkpoint: what was loaded.
        engines: names of the forms its stages come in.
        token_phases: those whose time makes tokens, for tokens per second.
        decodings: values of the option ``decoding`` that it knows.
        keyword_decodings: those in which it follows keywords without a prompt.
        edits: whether it goes over a draft, as often as ``edit_rounds`` says.
        max_audio_s: the longest recording one pass takes, in seconds.
        frame_s: seconds from one row of the CTC logits to the next.
    """

    engines: tuple[str, ...] = ("eager", "compile")
    token_phases: tuple[str, ...] = ()
    decodings: tuple[str, ...] = ("greedy",)
    keyword_decodings: tuple[str, ...] = ()
    edits: bool = False
    max_audio_s: float
    frame_s: float

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self._engines: dict[str, E] = {}

    def check(self, options: TranscribeOptions) -> None:
        """Refuse options that this family cannot follow.

        Raises:
            UserError: the option, and what is possible.
        """
        title = self.checkpoint.model_info.title
        if options.decoding not in self.decodings:
            raise UserError(
                f"decoding is {options.decoding!r}; {title} knows {', '.join(self.decodings)}"
            )
        if options.edit_rounds != 1 and not self.edits:
            raise UserError(
                f"edit_rounds is {options.edit_rounds}; {title} edits no draft: leave it out"
            )

    def check_without_prompt(self, options: TranscribeOptions) -> None:
        """Refuse what only a prompt could ask for: another task, a language it does not know.

        Raises:
            UserError: the option, and what is possible.
        """
        title, languages = self.checkpoint.model_info.title, self.checkpoint.model_info.languages
        if options.task != "transcribe":
            raise UserError(f"task is {options.task!r}; {title} can transcribe and nothing else")
        asked = ("target_language", "instruction", "prefix_text")
        useless = next((name for name in asked if getattr(options, name)), None)
        if useless is not None:
            raise UserError(f"{useless} came, which {title} cannot use; leave it out")
        if options.language is not None and options.language not in languages:
            raise UserError(
                f"language is {options.language!r}; {title} knows {', '.join(languages)}"
            )

    def settle(self, options: TranscribeOptions) -> TranscribeOptions:
        """Return the options, with what the family decides where the caller left a default."""
        return options

    def longest_pass_s(self, options: TranscribeOptions) -> float:
        """Return how long a recording one pass is trusted with; longer ones are cut at pauses."""
        return min(self.checkpoint.model_info.reliable_s, self.max_audio_s)

    @abstractmethod
    def make_engine(self, name: str) -> E:
        """Make the stages called ``name``, one of :attr:`engines`."""

    def engine(self, name: str) -> E:
        """Return the stages called ``name``, made on first use.

        Raises:
            UserError: no such engine.
        """
        if name not in self._engines:
            if name not in self.engines:
                known = " or ".join(map(repr, self.engines))
                raise UserError(f"engine is {name!r}; expected {known}")
            self._engines[name] = self.make_engine(name)
        return self._engines[name]

    def use_engine(self, engine: E) -> None:
        """Run requests that ask for an engine of this one's name with these stages."""
        self._engines[engine.name] = engine

    @property
    def tokenizer(self) -> TextDecoder:
        """Return what makes text of token ids."""
        return self.checkpoint.required_tokenizer()

    def appends(self, options: TranscribeOptions) -> bool:
        """Return whether a later hypothesis only adds tokens to an earlier one."""
        return False

    def forget_compiled(self) -> None:
        """Drop compiled stages: layers changed their shapes, or a package has more of them."""
        self._engines.pop("compile", None)

    @property
    def is_compiled(self) -> bool:
        """Return whether compiled stages are in memory."""
        return "compile" in self._engines

    def warm_up(self, *, batches: bool) -> None:
        """Compile every graph that single clips meet (with ``batches`` also several at once)."""
        self.engine("compile")

    @abstractmethod
    def extract(self, waveforms: Sequence[Tensor], engine: NamedEngine) -> Features:
        """Compute the features of waveforms [N] at 16 kHz, padded to what ``engine`` asks for."""

    @abstractmethod
    def encode(self, features: Features, request: RecognitionRequest) -> Encoded:
        """Run the encoder and its CTC head."""

    def contains_speech(self, ctc_logits: Tensor) -> bool:
        """Return whether any frame of a clip's logits [T, V] is a character."""
        return ctc.contains_speech(ctc_logits)

    @abstractmethod
    def recognise(
        self,
        batch: EncodedClips,
        request: RecognitionRequest,
        clock: PhaseClock,
        cancelled: Callable[[], bool],
    ) -> Iterator[Recognition]:
        """Yield hypotheses, one a clip and better ones as they come, and marks of phases.

        Args:
            batch: the clips to write.
            request: how.
            clock: times the family's own phases.
            cancelled: asked before every step; True ends the work.
        """

    @abstractmethod
    def finish(self, clip: Clip, request: RecognitionRequest) -> None:
        """Give a clip that has a hypothesis its final text and words."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """One family of models, found by the ``model_type`` of its config.json.

    Attributes:
        model_type: as config.json says it.
        title: for people, such as "autoregressive, with a Granite decoder".
        phases: names of its stages in the order they run; traces, tables, charts and the app
            show these.
        parse_config: files -> its config, or a ConfigError.
        build: config, files, dtype, device -> the loaded model and a report of its tensors.
        describe: files, config -> what the checkpoint can do.
        recognizer: makes the recognizer of a loaded checkpoint.
        quantize: the function that quantises a model in place by method, or None.
        lora: whether adapters in PEFT's format can be attached.
    """

    model_type: str
    title: str
    phases: tuple[str, ...]
    parse_config: Callable[[CheckpointFiles], Any]
    build: Callable[[Any, CheckpointFiles, torch.dtype, torch.device], tuple[nn.Module, LoadReport]]
    describe: Callable[[CheckpointFiles, Any], ModelInfo]
    recognizer: type[Recognizer[Any]]
    quantize: Callable[[Any, str], object] | None = None
    lora: bool = False
