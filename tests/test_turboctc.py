"""The CTC-only family through the whole path: load, transcribe, stream, compile, refuse.

The checkpoint is random and made on the spot. Run alone:
``python -m pytest tests/test_turboctc.py``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import core
from core.engine import compiling
from core.errors import UserError
from core.inspection import inspect
from core.lab import Lab
from core.text.ctc_tokenizer import decode_emitted
from core.transcription.granite_speech5 import CTC_DECODE
from core.transcription.options import PartialText, PhaseDone, PhaseStarted
from granite_speech5 import write_ctc_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole checkpoint folder."""
    return write_ctc_folder(tmp_path_factory.mktemp("turboctc"))


@pytest.fixture(scope="module")
def turbo(folder: Path) -> Lab:
    return core.load(folder, device="cpu", dtype="float32")


def test_a_recording_becomes_text_with_times_of_80_ms_rows(
    turbo: Lab, noise: Callable[..., Tensor]
) -> None:
    found = turbo.transcribe(noise(2.0))
    assert found.text == decode_emitted(turbo.tokenizer, found.token_ids).strip()
    assert found.text
    assert [phase.name for phase in found.phases] == [
        *("decode_audio", "features", "encoder", CTC_DECODE, "detokenize")
    ]
    steps = [word.start / 0.08 for word in found.words]
    assert steps == pytest.approx([round(step) for step in steps])
    assert all(word.end <= 2.0 + 1e-6 for word in found.words)
    assert found.lora is None


def test_each_clip_of_a_batch_gets_the_text_it_gets_alone(
    turbo: Lab, noise: Callable[..., Tensor]
) -> None:
    clips = [noise(seconds, seed=seed) for seed, seconds in enumerate((1.3, 0.5, 2.1, 0.1))]
    together = turbo.transcribe_batch(clips)
    assert [t.token_ids for t in together] == [turbo.transcribe(c).token_ids for c in clips]


def test_a_clip_too_short_for_a_row_and_silence_are_empty(
    turbo: Lab, noise: Callable[..., Tensor]
) -> None:
    assert turbo.transcribe(noise(0.05)).text == ""
    assert turbo.transcribe(torch.zeros(16_000)).text == ""


def test_it_streams_its_phases_and_its_text(turbo: Lab, noise: Callable[..., Tensor]) -> None:
    events = list(turbo.stream(noise(1.0)))
    assert PhaseStarted(0, CTC_DECODE) in events
    assert CTC_DECODE in [event.name for event in events if isinstance(event, PhaseDone)]
    assert any(isinstance(event, PartialText) for event in events)


def test_compiled_text_is_the_eager_text_and_lengths_share_their_graph(
    turbo: Lab, noise: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_, made = torch.compile, []

    def traced_only(run: Callable[..., object], **options: object) -> object:
        made.append(run)
        return compile_(run, backend="eager", fullgraph=True, dynamic=False)

    monkeypatch.setattr(compiling.torch, "compile", traced_only)
    torch.compiler.reset()
    clips = [noise(0.4 + 0.17 * number, seed=number) for number in range(8)]
    for clip in clips:
        eager, compiled = turbo.transcribe(clip), turbo.transcribe(clip, engine="compile")
        assert compiled.token_ids == eager.token_ids
    assert len(made) == 1
    assert turbo.compile_ledger.graphs == {"encoder": 1}


def test_a_listed_word_can_win_where_the_beam_reads(
    turbo: Lab, noise: Callable[..., Tensor]
) -> None:
    clip = noise(1.0)
    greedy = turbo.transcribe(clip)
    word = turbo.tokenizer.decode(greedy.token_ids[:1])
    found = turbo.transcribe(clip, decoding="beam", keywords=[word])
    assert found.text
    assert len(found.words) > 0


def test_what_a_ctc_head_cannot_do_is_refused(turbo: Lab, noise: Callable[..., Tensor]) -> None:
    for options, said in (
        ({"decoding": "sample"}, "knows greedy, beam"),
        ({"decoding": "speculative"}, "knows greedy, beam"),
        ({"task": "translate", "target_language": "fr"}, "can transcribe and nothing else"),
        ({"language": "fr"}, "knows en"),
        ({"keywords": ["one"]}, "ask for decoding 'beam'"),
        ({"lora": True}, "takes no adapter"),
        ({"target_language": "fr"}, "target_language came, which .* cannot use"),
        ({"instruction": "sing"}, "instruction came"),
        ({"prefix_text": "so"}, "prefix_text came"),
    ):
        with pytest.raises(UserError, match=said):
            turbo.transcribe(noise(0.5), **options)
    with pytest.raises(UserError, match="has no text mode"):
        turbo.chat("hello")


def test_a_tokenizer_of_another_checkpoint_is_refused(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    raw = json.loads((tmp_path / "tokenizer.json").read_text())
    raw["model"]["vocab"]["surplus"] = 259
    (tmp_path / "tokenizer.json").write_text(json.dumps(raw))
    with pytest.raises(UserError, match="260 tokens, the CTC head 259 labels"):
        core.load(tmp_path, device="cpu")
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"has no tokenizer\.json"):
        core.load(tmp_path, device="cpu")


def test_it_is_inspected_by_its_parts(turbo: Lab) -> None:
    facts = inspect(turbo)
    assert set(facts["parts"]) == {"encoder"}
    assert facts["parameters"] == sum(p.numel() for p in turbo.model.parameters())
    assert facts["capabilities"]["lora"] is False
