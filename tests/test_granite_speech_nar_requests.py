"""granite_speech_nar through the whole path: draft, edit, rounds, limits, stages, refusals.

The checkpoints are random and made on the spot. Run alone:
``python -m pytest tests/test_granite_speech_nar_requests.py``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import core
from app.service.service import TranscriptionService
from app.service.settings import Settings
from core.__main__ import main
from core.checkpoint.config_granite_speech_nar import parse_granite_speech_nar
from core.engine import compiling
from core.errors import UserError
from core.inspection import inspect
from core.lab import Lab
from core.text.export import to_json
from core.transcription.granite_speech_nar import EDIT, NOT_EDITED
from core.transcription.options import PartialText, PhaseDone, PhaseStarted
from core.transcription.resume import read_transcript
from granite_speech_nar import (
    PUBLISHED,
    write_nar_folder,
)
from measuring import RECORDING, workload
from profiling.measure.timed_pass import TimingSettings
from profiling.measure.workload import ClipInfo
from profiling.runs.session import measure
from profiling.runs.store import RunStore
from tiny_models import END_ID

NAME = "granite-speech-4.1-2b-nar"
LENGTHS = (0.03, 0.05, 0.1, 0.3, 0.31, 0.62, 1.0, 2.1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nar_folder(tmp_path_factory.mktemp("nar"))


@pytest.fixture(scope="module")
def nar(folder: Path) -> Lab:
    return core.load(folder, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    place = write_nar_folder(tmp_path_factory.mktemp("nle"), first_release=True)
    return core.load(place, device="cpu", dtype="float32")


def test_a_recording_becomes_a_draft_and_its_edit(nar: Lab, noise: Callable[..., Tensor]) -> None:
    found = nar.transcribe(noise(2.0))
    phases = [phase.name for phase in found.phases]
    assert phases == [
        *("decode_audio", "features", "encoder", "draft", "detokenize", "projector", EDIT)
    ]
    assert found.text == nar.tokenizer.decode(found.token_ids).strip()
    assert found.text
    assert found.lora is None
    assert [word.text for word in found.words] == found.text.split()
    kept = nar.transcribe(noise(2.0), edit_rounds=0)
    assert EDIT not in [phase.name for phase in kept.phases]
    assert found.draft.text == kept.text == kept.draft.text != found.text
    assert (found.draft.passes, kept.draft.passes) == (1, 0)
    assert kept.draft.accepted == kept.draft.drafted > found.draft.accepted
    assert json.loads(to_json(found))["draft"]["text"] == kept.text
    assert read_transcript(json.loads(to_json(found))) == found


def test_further_rounds_edit_the_edited_text(nar: Lab, noise: Callable[..., Tensor]) -> None:
    recognizer, model = nar.session.recognizer, nar.model
    draft = nar.transcribe(noise(1.0), edit_rounds=0)
    rounds = [nar.transcribe(noise(1.0), edit_rounds=n) for n in (1, 2)]
    features = recognizer.extract([noise(1.0)], recognizer.engine("eager"))
    stages = recognizer.engine("eager")
    with torch.inference_mode():
        encoded = stages.encode(features.values, torch.tensor(features.lengths), None)
        audio = stages.project(encoded.frames, features.lengths)
        ids = list(draft.token_ids)
        for found in rounds:
            slots = model.config.slots(ids)
            labels = stages.edit(audio, [features.lengths[0] // 5], [slots]).labels[0].tolist()
            merged = [x for x, before in zip(labels, [None, *labels], strict=False) if x != before]
            ids = [x for x in merged if x != END_ID]
            assert ids == list(found.token_ids)


def test_each_clip_of_a_batch_gets_the_text_it_gets_alone(
    nar: Lab, first: Lab, noise: Callable[..., Tensor]
) -> None:
    clips = [noise(seconds, seed=seed) for seed, seconds in enumerate(LENGTHS)]
    for lab in (nar, first):
        together = lab.transcribe_batch(clips, edit_rounds=2)
        alone = [lab.transcribe(clip, edit_rounds=2) for clip in clips]
        assert [t.token_ids for t in together] == [t.token_ids for t in alone]
        assert [t.draft for t in together] == [t.draft for t in alone]


def test_the_first_release_edits_a_lower_case_draft(
    first: Lab, noise: Callable[..., Tensor]
) -> None:
    found = first.transcribe(noise(1.0), edit_rounds=0)
    assert found.text == found.text.lower()
    assert list(found.token_ids) == first.tokenizer.encode_continuation(found.draft.text)
    assert first.transcribe(noise(1.0)).text != found.text


def test_the_draft_is_shown_while_the_edit_runs(nar: Lab, noise: Callable[..., Tensor]) -> None:
    events = list(nar.stream(noise(1.0)))
    drafted = nar.transcribe(noise(1.0), edit_rounds=0)
    assert PhaseStarted(0, EDIT) in events
    assert {"draft", "projector", EDIT} <= {e.name for e in events if isinstance(e, PhaseDone)}
    texts = [event.text for event in events if isinstance(event, PartialText)]
    assert texts[0].strip() == drafted.text
    assert len(texts) == 2


def test_a_stop_keeps_the_draft(nar: Lab, noise: Callable[..., Tensor]) -> None:
    seen: list[Any] = []
    for event in nar.stream(noise(1.0), cancelled=lambda: any(_is_draft(e) for e in seen)):
        seen.append(event)
    found = seen[-1].transcript
    assert found.text == nar.transcribe(noise(1.0), edit_rounds=0).text
    assert found.stopped
    assert found.draft.passes == 0


def _is_draft(event: object) -> bool:
    return isinstance(event, PhaseDone) and event.name == "draft"


def test_silence_is_empty_and_long_recordings_are_cut(
    nar: Lab, noise: Callable[..., Tensor]
) -> None:
    assert nar.transcribe(torch.zeros(16_000)).text == ""
    longest_s = nar.session.recognizer.longest_pass_s(nar.check())
    found = nar.transcribe(noise(2.5 * longest_s), skip_silence=False)
    assert len(found.segments) > 1
    assert found.audio_s == pytest.approx(2.5 * longest_s)
    assert found.draft.text
    assert found.draft.passes == len(found.segments)


def test_a_pass_is_as_long_as_surely_fits_the_positions(nar: Lab) -> None:
    config, recognizer = nar.config, nar.session.recognizer
    frames = round(nar.max_audio_s / recognizer.frame_s)
    most = frames // 5 + config.num_slots(-(-frames // 4))
    assert config.decoder.max_position_embeddings - 4 <= most
    assert most <= config.decoder.max_position_embeddings
    assert inspect(nar)["capabilities"]["max_audio_s"] == nar.max_audio_s < 30
    published = parse_granite_speech_nar(PUBLISHED, "x")
    assert published.longest_frames * 0.02 == pytest.approx(117, abs=1)


def test_a_text_that_outgrows_the_positions_stays_as_it_is_and_it_is_said(
    nar: Lab, noise: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    drafted = nar.transcribe(noise(2.0), edit_rounds=0)
    monkeypatch.setattr(type(nar.config), "num_slots", lambda *_: 512)
    found = nar.transcribe(noise(2.0))
    assert found.text == drafted.text
    assert NOT_EDITED in found.warnings
    assert found.draft.passes == 0


def test_compiled_text_is_the_eager_text_and_lengths_share_their_graphs(
    nar: Lab, noise: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_, made = torch.compile, []

    def traced_only(run: Callable[..., object], **options: object) -> object:
        made.append(run)
        return compile_(run, backend="eager", fullgraph=True, dynamic=False)

    monkeypatch.setattr(compiling.torch, "compile", traced_only)
    torch.compiler.reset()
    monkeypatch.setattr(nar.session.recognizer, "_engines", dict(nar.session.recognizer._engines))
    monkeypatch.setattr(nar.compile_ledger, "graphs", {})
    for number in range(30):
        clip = noise(0.05 + 0.043 * number, seed=number)
        eager, compiled = nar.transcribe(clip), nar.transcribe(clip, engine="compile")
        assert compiled.token_ids == eager.token_ids
    graphs = {"encoder": 2, "draft": 1, "projector": 1, EDIT: 1}  # within a block, of several
    assert nar.compile_ledger.graphs == graphs
    torch.compiler.reset()


@pytest.mark.slow
def test_compiled_by_the_real_compiler_it_writes_the_same(
    nar: Lab, noise: Callable[..., Tensor]
) -> None:
    torch.compiler.reset()
    nar.warm_up(batches=True)
    before = dict(nar.compile_ledger.graphs)
    for seconds in LENGTHS:
        clip = noise(seconds)
        compiled = nar.transcribe(clip, engine="compile")
        assert compiled.token_ids == nar.transcribe(clip).token_ids
    clips = [noise(seconds, seed=1) for seconds in LENGTHS[2:]]
    together = nar.transcribe_batch(clips, engine="compile")
    assert [t.token_ids for t in together] == [nar.transcribe(c).token_ids for c in clips]
    assert nar.compile_ledger.graphs == before


def test_what_it_cannot_do_is_refused(nar: Lab, lab: Lab, noise: Callable[..., Tensor]) -> None:
    for options, said in (
        ({"decoding": "beam"}, "knows greedy"),
        ({"task": "translate", "target_language": "fr"}, "can transcribe and nothing else"),
        ({"language": "ja"}, "knows en, fr, de, es, pt"),
        ({"keywords": ["one"]}, "no prompt for them"),
        ({"lora": True}, "takes no adapter"),
        ({"edit_rounds": -1}, "edit_rounds is -1; expected 0 to 16"),
    ):
        with pytest.raises(UserError, match=said):
            nar.transcribe(noise(0.5), **options)
    with pytest.raises(UserError, match="edits no draft"):
        lab.check(edit_rounds=2)
    nar.check(language="fr")
    with pytest.raises(UserError, match="has no decoder that writes token by token"):
        nar.generate_ids([[1]])


def test_its_decoder_can_be_quantised_and_its_encoder_stays(
    folder: Path, nar: Lab, noise: Callable[..., Tensor]
) -> None:
    small = core.load(folder, device="cpu", dtype="float32", quantize="int8-weight-only")
    encoder = nar.model.encoder.state_dict()
    same = small.model.encoder.state_dict()
    assert all(torch.equal(encoder[name], tensor) for name, tensor in same.items())
    assert small.transcribe(noise(1.0)).text


def test_a_tokenizer_without_the_blank_is_refused(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    raw = json.loads((tmp_path / "tokenizer.json").read_text())
    raw["added_tokens"] = []
    (tmp_path / "tokenizer.json").write_text(json.dumps(raw))
    with pytest.raises(UserError, match=f"has no token {END_ID}, the blank"):
        core.load(tmp_path, device="cpu")


def test_the_command_line_and_the_app_show_the_draft(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sound = tmp_path / "noise.wav"
    sound.write_bytes(RECORDING)
    asked = ["transcribe", str(sound), "--model", str(folder), "--format", "json"]
    texts = []
    for rounds in ("0", "1"):
        assert main([*asked, "--edit-rounds", rounds, "--device", "cpu"]) == 0
        found = json.loads(capsys.readouterr().out)
        texts.append((found["draft"]["text"], found["text"]))
    assert texts[0] == (texts[1][0], texts[1][0])
    service = TranscriptionService(model="tiny", device="cpu")
    outcome = service.transcribe(str(sound), Settings(model=str(folder)))
    assert outcome.draft is not None
    assert (outcome.draft.text, outcome.text) == texts[1]
    card = next(card for card in service.summaries() if card.name == str(folder))
    assert card.tasks == ("transcribe",)
    assert card.loaded
    assert NAME in [card.name for card in service.summaries()]


@pytest.mark.slow
def test_a_recorded_profile_shows_its_phases(nar: Lab, tmp_path: Path) -> None:
    store, sound = RunStore(tmp_path / "runs"), tmp_path / "noise.wav"
    sound.write_bytes(RECORDING)
    work = workload(nar, ignore_eos=False, clip=ClipInfo("n.wav", str(sound), "0" * 64, 2.0))
    (name,) = measure(nar, [work], store, TimingSettings(blocks=2, again=False))
    run = store.read(name)
    for rows, key in (("phases", "name"), ("memory", "phase")):
        assert {"draft", "projector", EDIT} <= {row[key] for row in run[rows]}
    assert run["draft"]["passes"] == 1


def test_it_is_inspected_by_its_parts(nar: Lab) -> None:
    facts = inspect(nar)
    assert set(facts["parts"]) == {"encoder", "bpe_head", "projector", "decoder"}
    assert facts["parameters"] == sum(p.numel() for p in nar.model.parameters())
    assert facts["capabilities"]["lora"] is False
