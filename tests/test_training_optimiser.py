"""The optimiser of every training stage: who steps what, how a run resumes or starts anew."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from training.corpus.vocabulary import train_tokenizer
from training.stages import decoder_stage
from training.stages.optimiser import Optimiser


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 8), nn.LayerNorm(8))


def train(model: nn.Module, optimiser: Optimiser, steps: int) -> list[float]:
    wanted = torch.randn((5, 8), generator=torch.Generator().manual_seed(1))
    losses = []
    for _ in range(steps):
        loss = (model(torch.arange(5)) - wanted).square().mean()
        losses.append(loss.item())
        optimiser.step(loss, 0.02)
    return losses


def test_matrices_tables_and_vectors_all_learn_and_the_loss_falls() -> None:
    model = small()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    losses = train(model, Optimiser(model.named_parameters()), 60)
    assert losses[-1] < 0.3 * losses[0]
    for name, parameter in model.named_parameters():
        assert not torch.equal(parameter, before[name]), f"{name} did not move"


def test_the_projectors_last_layer_takes_smaller_steps() -> None:
    parameters = {
        name: nn.Parameter(torch.ones(4)) for name in ("projector.linear.bias", "projector.query")
    }
    optimiser = Optimiser(parameters.items())
    loss = torch.stack([p.square().sum() for p in parameters.values()]).sum()
    optimiser.step(loss, 0.01)
    moved = {name: float((1 - p.detach()).abs().max()) for name, p in parameters.items()}
    assert 0 < moved["projector.linear.bias"] < 0.5 * moved["projector.query"]


def test_a_run_that_resumes_ends_where_one_without_a_stop_does() -> None:
    whole = small()
    train(whole, Optimiser(whole.named_parameters()), 6)
    first = small()
    optimiser = Optimiser(first.named_parameters())
    train(first, optimiser, 3)
    second = small()
    second.load_state_dict(first.state_dict())
    resumed = Optimiser(second.named_parameters())
    resumed.load_state_dict(optimiser.state_dict())
    train(second, resumed, 3)
    for one, other in zip(whole.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_the_state_of_another_optimiser_is_refused_with_the_way_out() -> None:
    model = small()
    foreign = torch.optim.AdamW(model.parameters()).state_dict()
    with pytest.raises(ValueError, match="--restart-from"):
        Optimiser(model.named_parameters()).load_state_dict(foreign)


def test_a_new_round_starts_at_step_0_from_the_weights_of_an_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_stage, "NUM_CHECKS", 1)

    def options(restart: Path | None) -> decoder_stage.DecoderOptions:
        return decoder_stage.DecoderOptions(
            steps=1,
            texts_per_batch=2,
            learning_rate=0.0,
            warmup=1,
            save_every_s=0.0,
            seed=0 if restart is None else 9,
            restart_from=restart,
        )

    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:  # a tokenizer of few texts is trained sooner than a whole one
        folder.mkdir()
        train_tokenizer(0, num_exchanges=200).save(str(folder / "tokenizer.json"))
    first = decoder_stage.run(folders[0], options(None))
    again = decoder_stage.run(folders[1], options(first))
    old, new = (torch.load(file, weights_only=True) for file in (first, again))
    assert new["step"] == 1
    for name, weight in old["decoder"].items():
        torch.testing.assert_close(new["decoder"][name], weight)
