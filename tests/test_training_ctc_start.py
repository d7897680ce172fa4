"""The sibling's first weights do what the trained encoder's did, as far as its rows allow."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from core.checkpoint.config_file import parse_config
from core.checkpoint.config_granite_speech5_ctc import parse_granite_speech5_ctc
from core.model.encoder import ConformerEncoder
from core.model.granite_speech5_ctc import GraniteSpeech5Config
from training.architecture import raw_config, raw_ctc_config
from training.corpus.menu_grammar import vocabulary
from training.corpus.vocabulary import word_tokenizer
from training.stages.ctc_start import fewer_distances, fewer_taps, narrow, start_from


def trained(layers: int) -> ConformerEncoder:
    """An encoder whose norms are no longer fresh, and whose middle gives nothing back."""
    raw = raw_config(vocab_size=512)
    raw["encoder_config"] |= {"num_layers": layers, "hidden_dim": 32, "dim_head": 8}
    raw["projector_config"] |= {"encoder_hidden_size": 32}
    encoder = ConformerEncoder(parse_config(raw, source="test").encoder).eval()
    with torch.no_grad():
        for name, value in [*encoder.named_parameters(), *encoder.named_buffers()]:
            if "norm" in name and value.is_floating_point():
                value += 0.1 * torch.rand_like(value)
        for value in encoder.out_mid.parameters():
            value.zero_()
    return encoder


def sibling_config(**changes: object) -> GraniteSpeech5Config:
    raw = raw_ctc_config(vocab_size=20)
    raw["encoder_config"] |= {"hidden_size": 32, "head_dim": 8, "intermediate_size": 128}
    raw["encoder_config"] |= {"max_position_embeddings": 512, "context_size": 200} | changes
    return parse_granite_speech5_ctc(raw, "test")


def frames_of(log_mel: Tensor) -> Tensor:
    """Features of the family with deltas from [B, T, 160], the deltas other than nought."""
    first, second = log_mel.chunk(2, dim=-1)
    return torch.cat([first, torch.ones_like(first), second, torch.ones_like(first)], dim=-1)


def test_with_all_rows_and_layers_it_hears_what_the_trained_encoder_hears():
    encoder = trained(3)
    config = sibling_config(num_hidden_layers=3, subsample_layers=[])
    model = start_from(encoder, config, layers=(0, 1, 2)).eval()
    torch.nn.init.zeros_(model.encoder.out_mid.weight)
    torch.nn.init.zeros_(model.encoder.out_mid.bias)
    log_mel, lengths = torch.randn(2, 60, 160), torch.tensor([60, 41])
    with torch.inference_mode():
        expected = encoder(log_mel, lengths).frames
        found, _ = model.encoder(frames_of(log_mel), lengths)
    for row, count in enumerate(lengths.tolist()):
        assert torch.allclose(found[row, :count], expected[row, :count], atol=1e-5)


def test_half_the_rows_make_half_the_distances_and_half_the_taps():
    table = torch.arange(-8.0, 9.0)[:, None]
    assert fewer_distances(table, 3, 2)[:, 0].tolist() == [-6, -4, -2, 0, 2, 4, 6]
    assert fewer_distances(table, 3, 4)[:, 0].tolist() == [-8, -8, -4, 0, 4, 8, 8]
    kernel = torch.arange(1.0, 8.0).reshape(1, 1, 7)
    halved = fewer_taps(kernel, 2)
    assert halved[0, 0, 3] >= 4, "the middle stays in the middle"
    assert (halved.sum(), halved[0, 0, [0, 6]].tolist()) == (kernel.sum(), [0.0, 0.0])
    assert torch.equal(fewer_taps(kernel, 1), kernel)


def test_a_narrower_feed_forward_keeps_the_units_that_do_most_in_their_order():
    block = {
        "ff.linear1.weight": torch.tensor([[3.0], [0.1], [1.0], [2.0]]),
        "ff.linear1.bias": torch.arange(4.0),
        "ff.linear2.weight": torch.tensor([[1.0, 1.0, 9.0, 1.0]]),
    }
    narrow(block, "ff", 2)
    assert block["ff.linear1.bias"].tolist() == [0.0, 2.0]
    assert block["ff.linear2.weight"].tolist() == [[1.0, 9.0]]
    assert block["ff.linear1.weight"].tolist() == [[3.0], [1.0]]


@pytest.mark.parametrize("said", ["press two to send a reply", "a", "o'clock"])
def test_every_word_of_the_domain_is_one_label(said: str):
    tokenizer = word_tokenizer(sorted(vocabulary()))
    ids = tokenizer.encode(said).ids
    assert (len(ids), tokenizer.decode(ids)) == (len(said.split()), said)
    assert 0 not in ids
    assert tokenizer.encode("weasels").ids == [0]
