"""Aligning: the encoder cut in two gives what it gives whole, and only what should learn learns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from core.model.granite_speech import GraniteSpeech
from training.architecture import ENCODER_LAYERS
from training.corpus.vocabulary import Vocabulary, train_tokenizer
from training.stages.align_model import (
    TRAINED_LAYERS,
    EncodedBatch,
    build,
    encode_frozen,
    encode_trained,
    speech_loss,
)
from training.stages.align_model import trainable as trained_by_name
from training.stages.batches import Batch
from training.stages.decoder_stage import new_decoder
from training.stages.encoder_stage import new_encoder
from training.stages.optimiser import Optimiser
from training.stages.pack import averaged


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fresh weights in the place of trained ones."""
    folder = tmp_path_factory.mktemp("stages")
    train_tokenizer(0, num_exchanges=200).save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    vocabulary = Vocabulary.read(folder / "tokenizer.json")
    torch.save({"encoder": new_encoder().state_dict()}, folder / "encoder.pt")
    torch.save({"decoder": new_decoder(vocabulary.size).state_dict()}, folder / "decoder.pt")
    return folder


def batch(num_frames: int) -> Batch:
    generator = torch.Generator().manual_seed(num_frames)
    return Batch(torch.randn((2, num_frames, 160), generator=generator), ("one two", "three"))


@pytest.mark.parametrize("num_frames", [40, 400])
def test_the_frozen_layers_and_the_last_ones_give_what_the_whole_encoder_gives(
    checkpoints: Path, num_frames: int
) -> None:
    model, _ = build(checkpoints)
    spoken = batch(num_frames)
    with torch.no_grad():
        whole = model.encoder(spoken.features, spoken.lengths).frames
        hidden = encode_frozen(model, spoken).hidden
        torch.testing.assert_close(
            encode_trained(model, hidden.float()), whole, atol=2e-2, rtol=2e-2
        )
        assert not torch.allclose(hidden.float(), whole, atol=0.1), (
            "nothing was left to encode_trained"
        )


def test_a_step_moves_projector_adapter_and_the_last_encoder_layers_alone(
    checkpoints: Path,
) -> None:
    model, vocabulary = build(checkpoints)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimiser = Optimiser(trained_by_name(model).items())
    heard = encode_frozen(model, batch(60))
    for _ in range(2):  # the adapter's first half moves once its second half is not zero
        loss = speech_loss(model, vocabulary, heard, lora=True, word_weight=0.3)
        optimiser.step(loss, 1e-3)
    moved = {
        name for name, value in model.state_dict().items() if not torch.equal(value, before[name])
    }
    parts = (
        "projector.",
        *(f"encoder.layers.{ENCODER_LAYERS - n - 1}." for n in range(TRAINED_LAYERS)),
    )
    assert moved, "nothing moved"
    assert all(name.startswith(parts) or ".lora_" in name for name in moved), moved
    for part in (*parts, "decoder."):
        assert any(name.startswith(part) for name in moved), f"nothing of {part} moved"


def test_with_the_adapter_off_only_the_answer_that_it_cannot_hear_counts(
    checkpoints: Path,
) -> None:
    model, vocabulary = build(checkpoints)
    heard = encode_frozen(model, batch(60))

    def loss(of: GraniteSpeech, texts: tuple[str, ...], *, lora: bool) -> float:
        with torch.no_grad():
            return float(speech_loss(of, vocabulary, EncodedBatch(heard.hidden, texts), lora=lora))

    assert loss(model, ("one", "two"), lora=False) == loss(model, ("six six", ""), lora=False)
    assert loss(model, ("one", "two"), lora=True) != loss(model, ("six six", ""), lora=True)


def test_rounds_are_averaged_weight_by_weight_and_strangers_refused(tmp_path: Path) -> None:
    for name, value in (("a", 1.0), ("b", 3.0)):
        weights = {"projector.norm.weight": torch.full((2,), value)}
        torch.save({"weights": weights}, tmp_path / f"{name}.pt")
    torch.save({"weights": {"other": torch.zeros(2)}}, tmp_path / "c.pt")
    mean = averaged([tmp_path / "a.pt", tmp_path / "b.pt"])
    assert mean["projector.norm.weight"].tolist() == [2.0, 2.0]
    with pytest.raises(ValueError, match=r"c\.pt holds other weights"):
        averaged([tmp_path / "a.pt", tmp_path / "c.pt"])
