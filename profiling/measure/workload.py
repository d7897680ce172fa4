"""A workload: one recording, one model, one way of running it. Enough to repeat a run.

In: a recording's path and options, and the model as it is loaded. Out: a frozen :class:`Workload`
that turns into JSON and back.
Two runs may be compared phase by phase exactly if their workloads ask for the same work, which
:meth:`Workload.same_work` says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from core.audio.decode import load_audio
from core.audio.waveform import SAMPLE_RATE, AudioError
from core.errors import UserError, check_types
from core.lab import Lab
from core.transcription.options import OptionFields, TranscribeOptions


@dataclass(frozen=True)
class ClipInfo:
    """One recording. seconds: its decoded length; sha256: of the file's bytes."""

    name: str
    path: str
    sha256: str
    seconds: float

    def __post_init__(self) -> None:
        check_types(self)

    @classmethod
    def of(cls, path: str | Path) -> ClipInfo:
        """Return what is to know of the recording at ``path``.

        Raises:
            AudioError: no readable recording there.
        """
        file = Path(path)
        try:
            content = file.read_bytes()
        except OSError as error:
            raise AudioError(
                f"{path}: cannot be read ({error.strerror}); expected a file"
            ) from error
        seconds = load_audio(file).shape[0] / SAMPLE_RATE
        return cls(file.name, str(path), hashlib.sha256(content).hexdigest(), seconds)


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One thing to measure.

    lora: on, off, or None where the model has no adapter; adapter: one that was added to it, None
    for its own. ignore_eos makes exactly ``max_new_tokens`` tokens, so that two arms do equal work.
    threads: of torch, on the CPU.
    quantize: of the decoder's weights, as ``core.load`` takes it; the model was loaded so.
    batch: how often the recording stands in the one pass that is measured.
    skip_silence is never used: a measurement that decodes nothing measures nothing.
    """

    clip: ClipInfo
    model: str
    revision: str | None
    engine: str
    lora: bool | None
    decoding: str
    device: str
    dtype: str
    max_new_tokens: int
    ignore_eos: bool
    threads: int
    seed: int
    task: str = "transcribe"
    language: str | None = None
    target_language: str | None = None
    num_beams: int | None = None
    quantize: str | None = None
    adapter: str | None = None
    batch: int = 1

    def __post_init__(self) -> None:
        check_types(self)
        for name, value in (("threads", self.threads), ("batch", self.batch)):
            if value < 1:
                raise UserError(f"{name} is {value}; expected 1 or more")
        TranscribeOptions(**self.options())

    def options(self) -> OptionFields:
        """Return the keywords for ``Lab.transcribe`` and ``Lab.stream``."""
        return {
            "task": self.task,
            "language": self.language,
            "target_language": self.target_language,
            "lora": self.lora,
            "adapter": self.adapter,
            "engine": self.engine,
            "decoding": self.decoding,
            "max_new_tokens": self.max_new_tokens,
            "num_beams": self.num_beams,
            "seed": self.seed,
            "ignore_eos": self.ignore_eos,
            "skip_silence": False,
        }

    def label(self) -> str:
        """Return a short name for tables: "eager, LoRA on, greedy"."""
        adapter = {None: "no LoRA", True: "LoRA on", False: "LoRA off"}[self.lora]
        adapter = f"adapter {self.adapter}" if self.adapter else adapter
        weights = f", {self.quantize}" if self.quantize else ""
        several = f", batch of {self.batch}" if self.batch > 1 else ""
        return f"{self.engine}, {adapter}, {self.decoding}{weights}{several}"

    @property
    def audio_s(self) -> float:
        """Return the seconds of sound that one pass transcribes."""
        return self.clip.seconds * self.batch

    def check(self, lab: Lab) -> None:
        """Check that a loaded model can do this work.

        Raises:
            UserError: an option it lacks, or a batch of recordings that it would cut into parts.
        """
        lab.check(**self.options())
        if self.batch == 1:
            return
        longest_s = lab.longest_pass_s(**self.options())
        if self.clip.seconds > longest_s:
            raise UserError(
                f"a batch of recordings of {self.clip.seconds:.0f} s came, which are cut and done "
                f"one after another; expected at most {longest_s:.0f} s, or a batch of 1"
            )

    def same_work(self, other: Workload) -> list[str]:
        """Name the fields that make two runs different work, not different ways to it."""
        here, there = asdict(self), asdict(other)
        here["clip"], there["clip"] = self.clip.sha256, other.clip.sha256
        asked = ["clip", "batch", "max_new_tokens", "ignore_eos"]
        asked += ["task", "language", "target_language"]
        return [name for name in asked if here[name] != there[name]]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types: the fields, and the label for whoever only shows it.

        Of the recording's place on disk only the name is kept: runs are passed on, folders are
        private.
        """
        clip = {**asdict(self.clip), "path": Path(self.clip.path).name}
        return {**asdict(self), "clip": clip, "label": self.label()}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Workload:
        """Return the workload that :meth:`to_json` wrote.

        Raises:
            UserError: missing or unknown keys, or values that no transcription takes.
        """
        raw = {key: value for key, value in raw.items() if key != "label"}
        clip = raw.get("clip")
        _check_keys(raw, cls, "a workload")
        if not isinstance(clip, Mapping):
            raise UserError(f"a workload's clip is {clip!r}; expected an object")
        _check_keys(clip, ClipInfo, "a clip")
        return cls(**{**raw, "clip": ClipInfo(**clip)})


@dataclass(frozen=True, kw_only=True)
class WorkloadChoices:
    """The choices of a user. lora: on, off, or None for on exactly where there is an adapter.

    model: the name it was asked for under; adapter: one that was added to it, None for its own;
    ignore_eos: make exactly ``max_new_tokens`` tokens; revision: of a repository.
    """

    model: str
    engine: str = "eager"
    lora: bool | None = None
    adapter: str | None = None
    decoding: str = "greedy"
    max_new_tokens: int = 128
    ignore_eos: bool = False
    revision: str | None = None
    seed: int = 0
    batch: int = 1


def workload_on(lab: Lab, clip: ClipInfo, choices: WorkloadChoices) -> Workload:
    """Return the workload of ``choices`` on ``lab``, with torch's current number of threads.

    Raises:
        ValueError: an option nobody has.
    """
    lora = choices.lora
    if lora is None:
        lora = lab.has_adapter or choices.adapter is not None
    return Workload(
        **{**asdict(choices), "lora": lora or (False if lab.has_adapter else None)},
        clip=clip,
        device=str(lab.device),
        dtype=str(lab.dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
        quantize=lab.quantize,
    )


def _check_keys(raw: Mapping[str, Any], kind: type[Workload] | type[ClipInfo], what: str) -> None:
    known = {field.name for field in fields(kind)}
    needed = {field.name for field in fields(kind) if field.default is MISSING}
    missing, unknown = sorted(needed - set(raw)), sorted(set(raw) - known)
    if missing or unknown:
        raise UserError(f"{what} has no {missing} and unknown {unknown}; expected {sorted(known)}")
