"""The key/value cache: written in place, never beyond its end, never shared.

Run alone: ``python -m pytest tests/test_cache.py``.
"""

import pytest
import torch

from core.model.cache import KVCache, allocate_cache
from core.model.decoder import GraniteDecoder
from tiny_models import random_model, raw_config

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def decoder() -> GraniteDecoder:
    return random_model(raw_config()).decoder


def cache_for(decoder: GraniteDecoder, num_slots: int, batch: int = 1) -> KVCache:
    return allocate_cache(
        decoder.config, batch=batch, num_slots=num_slots, dtype=torch.float32, device=CPU
    )


def test_prefill_and_steps_equal_one_full_forward(decoder: GraniteDecoder):
    embeddings = torch.randn(2, 14, 32)
    positions = torch.arange(14).expand(2, -1)
    cache = cache_for(decoder, 20, batch=2)
    with torch.inference_mode():
        expected = decoder(embeddings, positions)
        parts = [decoder(embeddings[:, :8], positions[:, :8], cache)]
        for at in range(8, 14):
            parts.append(decoder(embeddings[:, at : at + 1], positions[:, at : at + 1], cache))
    torch.testing.assert_close(torch.cat(parts, dim=1), expected, rtol=1e-4, atol=1e-4)


def test_several_steps_at_once_equal_single_ones(decoder: GraniteDecoder):
    embeddings, positions = torch.randn(1, 12, 32), torch.arange(12)[None]
    cache = cache_for(decoder, 12)
    with torch.inference_mode():
        expected = decoder(embeddings, positions)
        decoder(embeddings[:, :5], positions[:, :5], cache)
        found = decoder(embeddings[:, 5:], positions[:, 5:], cache)
    torch.testing.assert_close(found, expected[:, 5:], rtol=1e-4, atol=1e-4)


def test_rows_write_at_their_own_positions(decoder: GraniteDecoder):
    # Two prompts of three and six tokens, padded on the right, then two steps each.
    embeddings = torch.randn(2, 8, 32)
    lengths = (3, 6)
    cache = cache_for(decoder, 10, batch=2)
    with torch.inference_mode():
        decoder(embeddings[:, :6], torch.arange(6).expand(2, -1), cache)
        steps = []
        for step in range(2):
            at = torch.tensor([[length + step] for length in lengths])
            new = torch.stack([embeddings[row, at[row]] for row in range(2)])
            steps.append(decoder(new, at, cache))
        for row, length in enumerate(lengths):
            positions = torch.arange(length + 2)[None]
            alone = decoder(embeddings[row : row + 1, : length + 2], positions)
            found = torch.cat([step[row] for step in steps])
            torch.testing.assert_close(found, alone[0, length:], rtol=1e-4, atol=1e-4)


def test_what_lies_after_a_position_is_never_read(decoder: GraniteDecoder):
    embeddings = torch.randn(1, 4, 32)
    clean, dirty = cache_for(decoder, 16), cache_for(decoder, 16)
    for buffer in (*dirty.keys, *dirty.values):
        buffer[:, 4:] = 1e6
    with torch.inference_mode():
        found = [decoder(embeddings, torch.arange(4)[None], cache) for cache in (clean, dirty)]
    assert torch.equal(*found)


def test_a_position_beyond_the_end_raises(decoder: GraniteDecoder):
    cache = cache_for(decoder, 4)
    with pytest.raises((IndexError, RuntimeError)):
        decoder(torch.randn(1, 1, 32), torch.tensor([[4]]), cache)


def test_the_first_slots_are_a_view_of_the_same_memory(decoder: GraniteDecoder):
    cache = cache_for(decoder, 8)
    view = cache.first_slots(4)
    assert view.num_slots == 4
    view.write(1, torch.tensor([[2]]), torch.ones(1, 1, 2, 8), 2 * torch.ones(1, 1, 2, 8))
    assert cache.keys[1][0, 2].unique().tolist() == [1]
    assert cache.values[1][0, 2].unique().tolist() == [2]
    assert not cache.keys[0].any()
    assert cache.first_slots(8) is cache
    assert cache.first_slots(9) is cache


def test_reordering_copies_rows_of_every_layer(decoder: GraniteDecoder):
    cache = cache_for(decoder, 2, batch=3)
    for buffer in (*cache.keys, *cache.values):
        buffer += torch.arange(3.0)[:, None, None, None]
    cache.reorder(torch.tensor([2, 0, 2]))
    for buffer in (*cache.keys, *cache.values):
        assert buffer[:, 0, 0, 0].tolist() == [2, 0, 2]


def test_bytes_are_counted(decoder: GraniteDecoder):
    # 2 (keys and values) x 2 layers x 3 rows x 5 slots x 2 heads x 8 x 4 bytes.
    assert cache_for(decoder, 5, batch=3).num_bytes == 2 * 2 * 3 * 5 * 2 * 8 * 4
