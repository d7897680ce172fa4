"""The BPE CTC head: pooled as published, read into tokens, used for drafts that change nothing."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import core
import tiny_models
from core.__main__ import main
from core.checkpoint.config_file import parse_config
from core.checkpoint.hub import _BESIDE_WEIGHTS
from core.checkpoint.safetensors_io import CheckpointError
from core.checkpoint.weights import load_bpe_head
from core.inspection import inspect
from core.model.ctc import WINDOW, BpeHead, pool, read_tokens

WIDTH, LABELS = 32, tiny_models.VOCABULARY + 1


def write_head(folder: Path, **changes: Tensor) -> Path:
    generator = torch.Generator().manual_seed(5)
    tensors = {
        "weight": torch.randn(LABELS, WIDTH, generator=generator),
        "bias": torch.zeros(LABELS),
    }
    save_file({**tensors, **changes}, folder / "out_llm.safetensors")
    return folder / "out_llm.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer_file: Path) -> Path:
    """A random checkpoint with a BPE head, in the layout of 4.1."""
    folder = tmp_path_factory.mktemp("bpe")
    raw = tiny_models.raw_config(has_lora_adapter=False)
    tiny_models.write_checkpoint(folder, raw, tiny_models.random_model(raw, seed=1))
    (folder / "tokenizer.json").write_bytes(tokenizer_file.read_bytes())
    write_head(folder)
    return folder


def test_frames_are_pooled_by_how_little_they_are_blank():
    frames = torch.tensor([[1.0], [2.0], [3.0], [4.0], [10.0], [20.0]])
    importance = torch.tensor([0.0, 1.0, 1.0, 0.0, 0.5, 1.5])
    assert pool(frames, importance)[:, 0].tolist() == pytest.approx([2.5, 17.5])


def test_windows_of_blanks_alone_pool_to_nothing():
    assert pool(torch.ones(WINDOW, 3), torch.zeros(WINDOW)).tolist() == [[0.0] * 3]


def test_labels_are_tokens_after_blank_and_repeats_are_one():
    labels = torch.tensor([0, 5, 5, 0, 5, 9, 9, 0])
    logits = torch.nn.functional.one_hot(labels, 12).float()
    assert read_tokens(logits) == [4, 4, 8]


def test_a_head_reads_pooled_frames():
    head = BpeHead(torch.eye(4), torch.tensor([0.0, 0.0, 0.0, 1.0]))
    mid = torch.tensor([[-50.0, 50.0]] * 4)  # no frame is blank
    assert head(torch.ones(4, 4), mid).tolist() == [[1.0, 1.0, 1.0, 2.0]]


def test_the_hub_is_asked_for_the_head():
    assert "out_llm.safetensors" in _BESIDE_WEIGHTS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": torch.zeros(LABELS, WIDTH + 1)}, "expected \\[labels, 32\\]"),
        ({"bias": torch.zeros(3)}, "bias \\(3,\\)"),
        ({"more": torch.zeros(1)}, "expected weight and bias"),
    ],
)
def test_a_foreign_head_is_refused(tmp_path: Path, changes: dict[str, Tensor], message: str):
    config = parse_config(tiny_models.raw_config(), source="test")
    file = write_head(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=message):
        load_bpe_head(file, config, dtype=torch.float32, device=torch.device("cpu"))


def test_drafts_of_the_head_give_the_greedy_tokens(folder: Path, noise: Callable[..., Tensor]):
    lab = core.load(folder, device="cpu", dtype="float32")
    assert lab.autoregressive.bpe_head is not None
    options = {"max_new_tokens": 16, "ignore_eos": True, "skip_silence": False}
    clips = [noise(1.0), noise(2.3, seed=1)]
    plain = lab.transcribe_batch(clips, **options)
    quick = lab.transcribe_batch(clips, decoding="speculative", **options)
    assert [one.token_ids for one in quick] == [one.token_ids for one in plain]
    assert all(one.draft is not None and one.draft.drafted > 0 for one in quick)


def test_the_head_drafts_the_tokens_it_reads(
    folder: Path, noise: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
):
    """A head that says "zero one" makes that the draft, whatever the character head says."""
    lab = core.load(folder, device="cpu", dtype="float32")
    assert lab.tokenizer is not None
    said = lab.tokenizer.encode_continuation("zero one")

    def read(logits: Tensor) -> list[int]:
        assert logits.shape == (-(-49 // WINDOW), LABELS)  # a second: 49 frames, in fours
        return said

    monkeypatch.setattr("core.generation.speculative_relaxed.read_tokens", read)
    heard = []
    monkeypatch.setattr(
        "core.transcription.decode.speculate",
        lambda *args, **more: heard.extend(args[3]) or iter(()),
    )
    lab.transcribe(noise(0.985), decoding="speculative", skip_silence=False)
    assert heard == ["zero one"]


def test_inspect_counts_the_head(folder: Path, capsys: pytest.CaptureFixture[str]):
    lab = core.load(folder, device="cpu", dtype="float32")
    assert lab.autoregressive.bpe_head is not None
    count = sum(tensor.numel() for tensor in lab.autoregressive.bpe_head.parameters())
    assert inspect(lab)["bpe_ctc_head"] == {"parameters": count, "bytes": 4 * count}
    assert main(["inspect", str(folder)]) == 0
    assert f"{count:,} parameters" in capsys.readouterr().out
