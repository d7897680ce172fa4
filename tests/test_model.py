"""The composition: audio embeddings into the prompt, one forward of everything.

Run alone: ``python -m pytest tests/test_model.py``.
"""

import pytest
import torch

from core.model.cache import allocate_cache
from core.model.features import pad_features
from core.model.granite_speech import GraniteSpeech, check_audio_positions
from tiny_models import AUDIO_ID, VOCABULARY, random_model, raw_config


@pytest.fixture(scope="module")
def model() -> GraniteSpeech:
    return random_model(raw_config())


def test_audio_goes_to_its_places_in_order(model: GraniteSpeech):
    audio = torch.arange(1.0, 5)[None, :, None].expand(1, 4, 32)
    ids = torch.tensor([[5, AUDIO_ID, AUDIO_ID, 6, AUDIO_ID, 7]])
    out = model.splice(ids, audio)
    assert out[0, [1, 2, 4], 0].tolist() == [1, 2, 3]
    table = model.decoder.embed_tokens.weight
    assert torch.equal(out[0, [0, 3, 5]], table[[5, 6, 7]])


def test_each_row_takes_its_own_audio(model: GraniteSpeech):
    audio = torch.stack([torch.full((3, 32), value) for value in (1.0, 2.0)])
    ids = torch.tensor([[AUDIO_ID, 5, 5, 5], [5, AUDIO_ID, AUDIO_ID, AUDIO_ID]])
    out = model.splice(ids, audio)
    assert out[0, 0, 0] == 1
    assert out[1, 1:, 0].tolist() == [2, 2, 2]


def test_text_without_audio_is_the_table(model: GraniteSpeech):
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(model.splice(ids, torch.zeros(1, 1, 32)), model.decoder.embed_tokens(ids))


def test_the_audio_id_may_lie_outside_the_table():
    model = random_model(raw_config(audio_token_index=VOCABULARY + 5))
    out = model.splice(torch.tensor([[VOCABULARY + 5, 3]]), torch.ones(1, 1, 32))
    assert out[0, 0].unique().tolist() == [1]


def test_a_written_audio_token_reads_row_zero_as_in_the_reference(model: GraniteSpeech):
    found = model.embed_text(torch.tensor([[AUDIO_ID, 4]]))
    assert torch.equal(found[0], model.decoder.embed_tokens.weight[[0, 4]])


@pytest.mark.parametrize("audio_positions", [0, 2, 4])
def test_a_mismatch_raises_with_both_counts(audio_positions: int):
    with pytest.raises(
        ValueError, match=f"{audio_positions} audio positions .* makes 3 audio embeddings"
    ):
        check_audio_positions([1, *[AUDIO_ID] * audio_positions, 2], AUDIO_ID, 3)
    check_audio_positions([1, AUDIO_ID, AUDIO_ID, AUDIO_ID], AUDIO_ID, 3)


def test_the_forward_fills_a_cache_without_changing_its_answer(model: GraniteSpeech):
    features = pad_features([torch.randn(18, 160)], 20)
    ids = torch.tensor([[1, *[AUDIO_ID] * 6, 2, 3]])
    cache = allocate_cache(
        model.config.decoder, batch=1, num_slots=16, dtype=torch.float32, device=torch.device("cpu")
    )
    lengths = torch.tensor(features.lengths)
    with torch.inference_mode():
        plain = model(features.values, lengths, ids)
        cached = model(features.values, lengths, ids, cache=cache)
    torch.testing.assert_close(plain, cached, rtol=1e-4, atol=1e-4)
    assert cache.keys[1][0, :9].abs().sum(dim=(1, 2)).gt(0).all()
    assert not cache.keys[1][0, 9:].any()


def test_every_part_learns(model: GraniteSpeech):
    # One loss on the text reaches the encoder's first layer: training has a whole graph.
    model = random_model(raw_config()).requires_grad_(True)
    features = pad_features([torch.randn(18, 160)], 20)
    ids = torch.tensor([[1, *[AUDIO_ID] * 6, 2, 3]])
    model(features.values, torch.tensor(features.lengths), ids)[:, -2:].logsumexp(
        -1
    ).sum().backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # The last layer's CTC head is used for its middle posteriors too; nothing is left out.
    assert silent == []
