"""A deeper encoder hears what the trained one heard, and can learn from there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from core.checkpoint.config_file import parse_config
from core.model.encoder import ConformerEncoder
from training.__main__ import main
from training.architecture import raw_config
from training.stages.grow_encoder import grow, plan


def encoder_of(layers: int) -> ConformerEncoder:
    raw = raw_config(vocab_size=512)
    raw["encoder_config"] |= {"num_layers": layers, "hidden_dim": 32, "dim_head": 8}
    raw["projector_config"] |= {"encoder_hidden_size": 32}
    return ConformerEncoder(parse_config(raw, source="test").encoder).eval()


def trained(layers: int) -> ConformerEncoder:
    """An encoder whose norms and statistics are no longer those of a fresh one."""
    torch.manual_seed(3)
    encoder = encoder_of(layers)
    with torch.no_grad():
        for name, value in [*encoder.named_parameters(), *encoder.named_buffers()]:
            if "norm" in name and value.is_floating_point():
                value += 0.1 * torch.rand_like(value)
    return encoder


@pytest.mark.parametrize(("old", "new"), [(6, 9), (6, 12), (2, 7), (3, 3)])
def test_a_deeper_encoder_gives_nearly_what_the_trained_one_gave(old: int, new: int):
    encoder = trained(old)
    deeper = encoder_of(new)
    deeper.load_state_dict(grow(encoder.state_dict(), new))
    features, lengths = torch.randn(2, 60, 160), torch.tensor([60, 41])
    with torch.inference_mode():
        before, after = encoder(features, lengths), deeper(features, lengths)
    for one, other in zip(before, after, strict=True):
        assert torch.nn.functional.cosine_similarity(one, other, dim=-1)[0].min() > 0.99


def test_new_layers_learn():
    deeper = encoder_of(9)
    deeper.load_state_dict(grow(trained(6).state_dict(), 9))
    deeper(torch.randn(1, 40, 160), torch.tensor([40])).ctc_logits.square().mean().backward()
    new = [index for index, (_, same) in enumerate(plan(6, 9)) if not same]
    assert len(new) == 3
    for index in new:
        gradient = deeper.layers[index].ff2.down_proj.weight.grad
        assert gradient is not None
        assert gradient.abs().max() > 0


def test_the_layers_keep_their_order_and_the_middle_its_place():
    for old, new in ((6, 9), (6, 12), (7, 16), (5, 11)):
        layers = plan(old, new)
        assert len(layers) == new
        assert [source for source, same in layers if same] == list(range(old))
        assert [source for source, _ in layers] == sorted(source for source, _ in layers)
        assert layers[new // 2 - 1][0] == old // 2 - 1
        assert layers[new // 2] == (old // 2, True)


@pytest.mark.parametrize(("old", "new"), [(6, 5), (1, 4), (6, 7 - 2)])
def test_a_plan_that_cannot_be_says_what_it_expects(old: int, new: int):
    with pytest.raises(ValueError, match=f"an encoder of {old} layers; expected at least 2"):
        plan(old, new)


def write(folder: Path, weights: Mapping[str, Tensor]) -> Path:
    folder.mkdir()
    torch.save({"weights": dict(weights), "step": 9}, folder / "joint.pt")
    torch.save({"decoder": {}}, folder / "decoder.pt")
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    return folder


def test_the_command_writes_a_folder_that_a_new_round_begins_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    weights = {f"encoder.{name}": value for name, value in trained(6).state_dict().items()}
    old = write(tmp_path / "old", weights | {"projector.linear.bias": torch.ones(2)})
    new = tmp_path / "new"
    assert main(["--checkpoints", str(new), "grow-encoder", "--from", str(old)]) == 0
    began = torch.load(new / "align.pt", weights_only=True)["weights"]
    assert "encoder.layers.8.post_norm.weight" in began
    assert torch.equal(began["projector.linear.bias"], torch.ones(2))
    assert "layers.8.post_norm.weight" in torch.load(new / "encoder.pt")["encoder"]
    assert {file.name for file in new.iterdir()} >= {"decoder.pt", "tokenizer.json"}

    assert main(["--checkpoints", str(old), "grow-encoder", "--from", str(old)]) == 2
    assert "joint.pt already; give an empty folder" in capsys.readouterr().err
    assert main(["--checkpoints", str(tmp_path / "x"), "grow-encoder", "--from", str(new)]) == 2
    assert "has no joint.pt" in capsys.readouterr().err
