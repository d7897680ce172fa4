"""A checkpoint against transformers, stage by stage: the ladder of ``python -m core verify``.

In: a model's name and a recording. Out: a :class:`Verification`: what the checkpoint is made of,
what it writes, and one :class:`Rung` a stage where transformers can be asked. One model is in
memory at a time: ours is gone before the reference, a process of its own, loads its.

Shapes: N samples, T frames, A audio embeddings, Q new tokens, V vocabulary.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from core.audio.decode import load_audio
from core.checkpoint.catalog import ASSETS
from core.engine.encode import encode_in_groups
from core.errors import UserError
from core.generation.sampling import GenerationOptions
from core.lab import Lab
from core.loading import load
from core.transcription.autoregressive import AutoregressiveRecognizer
from core.transcription.forced_scores import logits_along
from core.transcription.granite_speech5 import CTCRecognizer
from core.transcription.options import TranscribeOptions

ROOT = ASSETS.parent
RECORDING = ASSETS / "examples" / "string_six_three_oh_seven_zero_six.flac"
NUM_TOKENS = 32
# Of the largest value of a stage. In float32 sums in another order differ by 1e-6 to 3e-5.
ALLOWED = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
CHOICES = ("tokens", "labels")  # rungs of ids: the others are of numbers
RUNGS = ("prompt", "features", "encoder", "ctc", "projector", "logits", *CHOICES)
WITHOUT_ADAPTER = "peft is not installed, so both models run without the checkpoint's LoRA adapter"
REFUSED = 3  # exit status of the reference's process


class NoReference(UserError):
    """transformers cannot be asked about a checkpoint; the message says why."""


@dataclass(frozen=True)
class Rung:
    """One stage compared. difference: the largest; relative: to the largest value expected.

    For ids ``difference`` counts those that differ, and ``relative`` is how much higher we score
    our own than the reference's: of rounding in half precision, next to nothing.
    """

    name: str
    difference: float
    relative: float
    allowed: float

    @property
    def is_equal(self) -> bool:
        """Return whether the difference is one of rounding; never where a value is not finite."""
        return self.relative <= self.allowed


@dataclass
class Stages:
    """Our side. tensors: by rung; scores: logits [Q, V] of each choice; given: the reference's."""

    tensors: dict[str, Tensor]
    scores: Tensor
    given: dict[str, Tensor]
    messages: list[dict[str, str]] | None = None


@dataclass(frozen=True)
class Verification:
    """The facts known of a checkpoint. reference: transformers' version, or None; notes: why so."""

    title: str
    num_tensors: int
    unused: tuple[str, ...]
    text: str
    rungs: tuple[Rung, ...] = ()
    reference: str | None = None
    notes: tuple[str, ...] = ()


def verify(
    name: str,
    *,
    recording: Path = RECORDING,
    device: str | None = None,
    dtype: str = "float32",
    revision: str | None = None,
) -> Verification:
    """Load a checkpoint, transcribe with it, and compare every stage with transformers'.

    Args:
        name: a catalog name, a Hub repository id, or a folder.
        recording: what is transcribed.
        device: of both models; None takes a GPU if there is one.
        dtype: of both models.
        revision: branch, tag or commit of a repository.

    Returns:
        What was found. Names, shapes and values of the tensors are sound, or it is an error.

    Raises:
        UserError: the checkpoint cannot be loaded, or the recording cannot be read.
    """
    lab = load(name, device=device, dtype=dtype, revision=revision)
    waveform, peft = load_audio(recording), find_spec("peft") is not None
    notes: tuple[str, ...] = () if peft or not lab.has_adapter else (WITHOUT_ADAPTER,)
    alone = Verification(
        title=lab.model_info.title,
        num_tensors=lab.report.num_tensors,
        unused=lab.report.unused,
        text=lab.transcribe(waveform).text,
        notes=notes,
    )
    folder, where, kind = lab.files.folder, str(lab.device), lab.dtype
    try:
        stages = stages_of(lab, waveform, lora=lab.has_adapter and peft)
        del lab
        gc.collect()
        expected, version = ask_reference(stages, folder, device=where, dtype=dtype)
    except NoReference as reason:
        return replace(alone, notes=(*notes, str(reason)))
    missing = [name for name in stages.tensors if name not in expected]
    notes += (
        (f"not compared: {missing[0]}, which transformers finds no template for",)
        if missing
        else ()
    )
    return replace(alone, rungs=compare(stages, expected, kind), reference=version, notes=notes)


@torch.inference_mode()
def stages_of(lab: Lab, waveform: Tensor, *, lora: bool) -> Stages:
    """Compute every stage of one clip.

    Args:
        lab: the checkpoint.
        waveform: [N] at 16 kHz.
        lora: whether the checkpoint's adapter is on.

    Returns:
        The stages, and what the reference needs to compute them too.

    Raises:
        NoReference: a family that transformers does not have.
    """
    recognizer = lab.session.recognizer
    if isinstance(recognizer, CTCRecognizer):
        return _ctc_stages(recognizer, waveform)
    if isinstance(recognizer, AutoregressiveRecognizer):
        state = lab.session.lora_state(lora)
        with lab.adapters.using(lab.session.adapter_for(state, None)):
            return _decoder_stages(lab, recognizer, waveform, state)
    raise NoReference(f"no stages of the family {lab.session.family.model_type} are compared")


def _ctc_stages(recognizer: CTCRecognizer, waveform: Tensor) -> Stages:
    features = recognizer.extract([waveform], recognizer.engine("eager"))
    lengths = torch.tensor(features.lengths, device=features.values.device)
    frames, lengths = recognizer.model.encoder(features.values, lengths)
    frames = frames[:, : int(lengths[0])]
    logits = recognizer.model.encoder.out(frames)
    tensors = {
        "features": features.values[:, : features.lengths[0]],
        "encoder": frames,
        "ctc": logits,
        "labels": logits[0].argmax(dim=-1),
    }
    return Stages(tensors, logits[0], {"waveform": waveform})


def _decoder_stages(
    lab: Lab, recognizer: AutoregressiveRecognizer, waveform: Tensor, state: bool | None
) -> Stages:
    parts, engine = recognizer.components, recognizer.engine("eager")
    request, lora = TranscribeOptions().request(), lab.session.checkpoint.lora_switch(state, 1)
    features = recognizer.extract([waveform], engine)
    count = features.lengths[0]
    encoded = encode_in_groups(engine, features, lora)
    prompt, messages = parts.prompt(request, count), parts.prompts.messages(request)
    chosen = GenerationOptions(max_new_tokens=NUM_TOKENS, ignore_eos=True)
    (made,) = lab.generate_ids([prompt], [waveform], lora=state, options=chosen)
    scores = logits_along(parts, engine, waveform, made.ids, request=request, lora=lora)
    audio = engine.project(encoded.frames, lora)
    tensors = {
        "prompt": torch.tensor(parts.tokenizer.encode(parts.prompts.template.render(messages))),
        "features": features.values[:, :count],
        "encoder": encoded.frames[:, :count],
        "ctc": encoded.ctc_logits[:, :count],
        "projector": audio[:, : lab.model.num_audio_tokens(count)],
        "logits": scores[0],
        "tokens": torch.tensor(made.ids),
    }
    given = {"waveform": waveform, "prompt_ids": torch.tensor(prompt)}
    return Stages(tensors, scores, given, messages)


def ask_reference(
    stages: Stages, folder: Path, *, device: str, dtype: str
) -> tuple[dict[str, Tensor], str]:
    """Have transformers compute the same stages, in a process of its own.

    Args:
        stages: ours, with the recording and the prompt.
        folder: the checkpoint's.
        device: where the reference runs.
        dtype: of its weights.

    Returns:
        A tensor for each rung, and transformers' version.

    Raises:
        NoReference: it is not installed, or has no such model, or failed.
    """
    if find_spec("transformers") is None or not (ROOT / "benchmarks" / "reference.py").is_file():
        raise NoReference(
            "transformers or the folder benchmarks/ is not here; with both, every stage is "
            "compared: pip install -r requirements-dev.txt in a checkout of this project"
        )
    with tempfile.TemporaryDirectory(prefix="verify-") as scratch:
        given, found = Path(scratch) / "given.safetensors", Path(scratch) / "found.safetensors"
        save_file(stages.given, given, metadata={"messages": json.dumps(stages.messages)})
        command = [sys.executable, "-m", "benchmarks.reference", str(folder.resolve())]
        command += [str(given), str(found), "--dtype", dtype, "--device", device]
        command += ["--tokens", str(NUM_TOKENS)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            failed = "" if done.returncode == REFUSED else "transformers failed: "
            raise NoReference(f"{failed}{last}")
        with safe_open(found, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, (file.metadata() or {})["transformers"]


def compare(stages: Stages, expected: dict[str, Tensor], dtype: torch.dtype) -> tuple[Rung, ...]:
    """Compare our stages with the reference's, rung by rung.

    Args:
        stages: ours.
        expected: the reference's, by rung.
        dtype: both were computed in.

    Returns:
        A rung for each stage that both have.
    """
    both = [name for name in RUNGS if name in stages.tensors and name in expected]
    return tuple(_compare_one(name, stages, expected[name].cpu(), ALLOWED[dtype]) for name in both)


def _compare_one(name: str, stages: Stages, expected: Tensor, allowed: float) -> Rung:
    found, infinite = stages.tensors[name].cpu(), float("inf")
    if found.shape != expected.shape:
        return Rung(name, infinite, infinite, allowed)
    if not found.is_floating_point():
        differs = (found != expected).nonzero().flatten()
        strict = name not in CHOICES or allowed == ALLOWED[torch.float32]
        margin = infinite if name not in CHOICES else _margin(name, stages, expected, differs)
        return Rung(name, len(differs), margin if len(differs) else 0.0, 0.0 if strict else allowed)
    difference = (found.float() - expected.float()).abs().max().item()
    return Rung(name, difference, difference / expected.float().abs().max().item(), allowed)


def _margin(name: str, stages: Stages, expected: Tensor, differs: Tensor) -> float:
    """Return how much higher our choices score than the reference's, of the largest score."""
    rows = differs if name == "labels" else differs[:1]  # what follows a token depends on it
    scores = stages.scores.float().cpu()
    ours, theirs = stages.tensors[name].cpu()[rows], expected[rows]
    margins = scores[rows, ours] - scores[rows, theirs]
    return (margins.max() / scores.abs().max()).item() if len(rows) else 0.0
