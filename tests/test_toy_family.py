"""A family of models in one file: an encoder with a CTC head and nothing else, random weights.

It touches no other module, and yet it loads, transcribes, streams, is cut into pieces where it is
long, shows its own phases in a recorded profile and stands in ``/models``. Run alone:
``python -m pytest tests/test_toy_family.py``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import core
from app.service.service import TranscriptionService
from app.service.settings import Settings
from core.checkpoint.catalog import ModelInfo
from core.checkpoint.hub import CheckpointFiles
from core.checkpoint.weights import LoadReport
from core.errors import UserError
from core.families import FAMILIES, register
from core.generation.greedy import EOS, Hypothesis
from core.lab import Lab
from core.model.features import FeatureConfig, Features, LogMel, pad_features
from core.phases import DETOKENIZE, ENCODER, FEATURES, PHASES, PhaseClock
from core.transcription.clip import Clip
from core.transcription.options import PartialText, PhaseDone
from core.transcription.recognizer import (
    Checkpoint,
    Encoded,
    EncodedClips,
    Family,
    NamedEngine,
    Recognition,
    RecognitionRequest,
    Recognizer,
)
from measuring import RECORDING, workload
from profiling.measure.timed_pass import TimingSettings
from profiling.measure.workload import ClipInfo
from profiling.runs.session import measure
from profiling.runs.store import RunStore

CTC_DECODE = "ctc_decode"
LETTERS = "\0 abcdefghijklmnopqrstuvwxyz"  # label 0 is blank


@dataclass(frozen=True)
class ToyConfig:
    """One layer."""

    width: int


class ToyModel(nn.Module):
    """Features [B, T, 160] -> logits [B, T, letters]."""

    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = nn.Conv1d(160, config.width, 9, padding=4)
        self.head = nn.Linear(config.width, len(LETTERS))

    def forward(self, features: Tensor) -> Tensor:
        return self.head(self.encoder(features.mT).relu().mT)


@dataclass(frozen=True)
class ToyEngine:
    name: str
    forward: Callable[[Tensor], Tensor]


class Letters:
    """What makes text of this family's ids."""

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(LETTERS[label] for label in ids)


class ToyRecognizer(Recognizer[ToyEngine]):
    """Greedy CTC."""

    engines = ("eager",)
    token_phases = (CTC_DECODE,)
    max_audio_s = 60.0
    frame_s = 0.02
    tokenizer = Letters()  # type: ignore[assignment]

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        self.extractor = LogMel(FeatureConfig(16_000, 512, 400, 160, 80))

    def make_engine(self, name: str) -> ToyEngine:
        return ToyEngine(name, self.checkpoint.model)

    def extract(self, waveforms: Sequence[Tensor], engine: NamedEngine) -> Features:
        return pad_features([self.extractor(waveform) for waveform in waveforms])

    def encode(self, features: Features, request: RecognitionRequest) -> Encoded:
        logits = self.engine(request.engine.name).forward(features.values)
        return Encoded(logits, list(features.lengths))

    def recognise(
        self,
        batch: EncodedClips,
        request: RecognitionRequest,
        clock: PhaseClock,
        cancelled: Callable[[], bool],
    ) -> Iterator[Recognition]:
        with clock.mark(CTC_DECODE):
            found = [self._read(clip) for clip in batch.clips]
        yield PhaseDone(0, CTC_DECODE, 1000 * clock.seconds(CTC_DECODE))
        yield found

    def _read(self, clip: Clip) -> Hypothesis:
        assert clip.ctc_logits is not None
        best = clip.ctc_logits.log_softmax(-1).max(-1)
        runs = groupby(
            zip(best.indices.tolist(), best.values.tolist(), strict=True), lambda x: x[0]
        )
        kept = [(label, next(run)[1]) for label, run in runs if label != 0]
        return Hypothesis([], [k for k, _ in kept], [p for _, p in kept], EOS)

    def finish(self, clip: Clip, request: RecognitionRequest) -> None:
        assert clip.hypothesis is not None
        clip.text = self.tokenizer.decode(clip.hypothesis.ids).strip()


def _build(
    config: ToyConfig, files: CheckpointFiles, dtype: torch.dtype, device: torch.device
) -> tuple[ToyModel, LoadReport]:
    model, state = ToyModel(config), load_file(files.shards["head.weight"])
    model.load_state_dict(state)
    report = LoadReport(num_tensors=len(state), unused=())
    return model.to(device, dtype).eval().requires_grad_(False), report


def _describe(files: CheckpointFiles, config: ToyConfig) -> ModelInfo:
    return ModelInfo(
        name=files.source,
        source=files.source,
        family="toy",
        title="A toy",
        licence="Apache-2.0",
        size_bytes=None,
        parameters=None,
        tasks=("transcribe",),
        languages=("en",),
    )


TOY = Family(
    model_type="toy_ctc",
    title="an encoder with a CTC head",
    phases=(FEATURES, ENCODER, CTC_DECODE),
    parse_config=lambda files: ToyConfig(files.json("config.json")["width"]),
    build=_build,
    describe=_describe,
    recognizer=ToyRecognizer,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint of the family on disk."""
    torch.manual_seed(3)
    save_file(ToyModel(ToyConfig(24)).state_dict(), tmp_path / "model.safetensors")
    raw: dict[str, Any] = {"model_type": TOY.model_type, "width": 24}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    return tmp_path


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[Lab]:
    """The family made known for one test, and a checkpoint of it."""
    before = list(PHASES)
    monkeypatch.setitem(FAMILIES, TOY.model_type, TOY)
    register(TOY)
    yield core.load(folder, device="cpu")
    PHASES[:] = before


def test_a_family_that_is_not_registered_is_refused_by_name(folder: Path) -> None:
    with pytest.raises(UserError, match="model_type is 'toy_ctc'; expected one of: granite_speech"):
        core.load(folder)


def test_its_phases_stand_where_they_run(toy: Lab) -> None:
    assert PHASES.index(ENCODER) < PHASES.index(CTC_DECODE) < PHASES.index(DETOKENIZE)


def test_it_transcribes_and_a_batch_is_its_clips(toy: Lab, noise: Callable[..., Tensor]) -> None:
    clips = [noise(1.0), noise(1.7, seed=1)]
    one, two = toy.transcribe_batch(clips)
    assert len(one.text) > 5
    assert (one.text, two.text) == tuple(toy.transcribe(clip).text for clip in clips)
    assert [phase.name for phase in one.phases][-2:] == [CTC_DECODE, DETOKENIZE]
    assert one.lora is None
    assert toy.transcribe(torch.zeros(16_000)).text == ""


def test_it_streams_its_own_phases_and_text(toy: Lab, noise: Callable[..., Tensor]) -> None:
    events = list(toy.stream(noise(1.0)))
    assert CTC_DECODE in [event.name for event in events if isinstance(event, PhaseDone)]
    assert [event.text for event in events if isinstance(event, PartialText)]


def test_a_long_recording_is_cut_for_it_too(toy: Lab, noise: Callable[..., Tensor]) -> None:
    found = toy.transcribe(noise(70.0), skip_silence=False)
    assert found.audio_s == pytest.approx(70.0)
    assert len(found.segments) > 1


def test_what_it_cannot_do_is_refused(toy: Lab, noise: Callable[..., Tensor]) -> None:
    for options in ({"decoding": "beam"}, {"engine": "compile"}, {"lora": True}):
        with pytest.raises(UserError):
            toy.transcribe(noise(1.0), **options)
    with pytest.raises(UserError, match="has no decoder"):
        toy.generate_ids([[1]])
    with pytest.raises(UserError, match="takes no adapters"):
        toy.add_adapter("mine", "nowhere")


def test_a_recorded_profile_shows_its_phases(toy: Lab, tmp_path: Path) -> None:
    store, sound = RunStore(tmp_path / "runs"), tmp_path / "noise.wav"
    sound.write_bytes(RECORDING)
    clip = ClipInfo("noise.wav", str(sound), "0" * 64, 2.0)
    work = workload(toy, ignore_eos=False, clip=clip)
    (name,) = measure(toy, [work], store, TimingSettings(blocks=2, again=False))
    run = store.read(name)
    assert CTC_DECODE in [row["name"] for row in run["phases"]]
    assert CTC_DECODE in [row["phase"] for row in run["memory"]]
    assert run["roofline"] is None


def test_the_app_transcribes_with_it_and_lists_it_among_its_models(
    toy: Lab, folder: Path, tmp_path: Path
) -> None:
    sound = tmp_path / "noise.wav"
    sound.write_bytes(RECORDING)
    service = TranscriptionService(model="tiny", device="cpu")
    result = service.transcribe(str(sound), Settings(model=str(folder)))
    assert result.text
    card = next(card for card in service.summaries() if card.name == str(folder))
    assert card.title == "A toy"
    assert card.loaded
