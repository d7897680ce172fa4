"""The Granite decoder: rotary positions, shared key heads, causality, its four multipliers.

Run alone: ``python -m pytest tests/test_decoder.py``.
"""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from core.model.decoder import GraniteDecoder, GroupedQueryAttention, RMSNorm, rope_tables, rotate
from tiny_models import random_model, raw_config


@pytest.fixture(scope="module")
def decoder() -> GraniteDecoder:
    return random_model(raw_config()).decoder


def run(decoder: GraniteDecoder, embeddings: Tensor, start: int = 0) -> Tensor:
    positions = torch.arange(start, start + embeddings.shape[1]).expand(embeddings.shape[:2])
    with torch.inference_mode():
        return decoder(embeddings, positions)


def test_position_zero_is_not_rotated():
    x = torch.randn(1, 1, 2, 8)
    cos, sin = rope_tables(torch.zeros(1, 1, dtype=torch.long), 8, 1e4)
    assert torch.equal(rotate(x, cos, sin), x)


def test_rotation_is_by_halves_and_keeps_length():
    # Half-split pairs: dimension i turns with i + d/2 by position * theta ** (-2i / d).
    x, positions = torch.randn(1, 3, 1, 8), torch.tensor([[0, 5, 70]])
    out = rotate(x, *rope_tables(positions, 8, 1e4))
    for step, position in enumerate(positions[0].tolist()):
        for i in range(4):
            angle = torch.tensor(position * 1e4 ** (-2 * i / 8))
            low, high = x[0, step, 0, i], x[0, step, 0, i + 4]
            torch.testing.assert_close(out[0, step, 0, i], low * angle.cos() - high * angle.sin())
            torch.testing.assert_close(
                out[0, step, 0, i + 4], high * angle.cos() + low * angle.sin()
            )
    torch.testing.assert_close(out.norm(dim=-1), x.norm(dim=-1))


def test_scores_depend_on_the_distance_alone():
    q, k = torch.randn(1, 1, 1, 16), torch.randn(1, 1, 1, 16)

    def score(at: int, key_at: int) -> Tensor:
        rotated = [
            rotate(x, *rope_tables(torch.tensor([[p]]), 16, 1e4)) for x, p in ((q, at), (k, key_at))
        ]
        return (rotated[0] * rotated[1]).sum()

    torch.testing.assert_close(score(9, 4), score(105, 100), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_shared_key_heads_equal_repeated_ones(kv_heads: int):
    config = random_model(raw_config(decoder={"num_key_value_heads": kv_heads})).config.decoder
    attention = GroupedQueryAttention(config)
    length, d = 5, config.head_dim
    x = torch.randn(2, length, config.hidden_size)
    positions = torch.arange(length).expand(2, -1)
    rope = rope_tables(positions, d, config.rope_theta)
    mask = torch.ones(length, length).tril().bool()
    group = config.num_attention_heads // kv_heads
    found = attention(x, rope, mask.repeat(group, 1)[None, None], positions, None, 0, None)
    q = rotate(attention.q_proj(x).unflatten(-1, (-1, d)), *rope)  # [B, T, H, d]
    k = rotate(attention.k_proj(x).unflatten(-1, (-1, d)), *rope).repeat_interleave(group, dim=2)
    v = attention.v_proj(x).unflatten(-1, (-1, d)).repeat_interleave(group, dim=2)
    scores = torch.einsum("bihd,bjhd->bhij", q, k) * config.attention_multiplier
    weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
    expected = attention.o_proj(torch.einsum("bhij,bjhd->bihd", weights, v).flatten(2))
    torch.testing.assert_close(found, expected)


def test_the_future_is_never_seen(decoder: GraniteDecoder):
    embeddings = torch.randn(1, 12, 32)
    changed = embeddings.clone()
    changed[:, 7] += 1
    before, after = run(decoder, embeddings), run(decoder, changed)
    assert torch.equal(before[:, :7], after[:, :7])
    assert (before[:, 7:] != after[:, 7:]).any(-1).all()


def test_positions_are_relative(decoder: GraniteDecoder):
    embeddings = torch.randn(1, 6, 32)
    torch.testing.assert_close(run(decoder, embeddings), run(decoder, embeddings, start=100),
                               rtol=1e-3, atol=1e-3)  # fmt: skip


def test_rows_are_independent(decoder: GraniteDecoder):
    embeddings = torch.randn(4, 9, 32)
    together = run(decoder, embeddings)
    alone = torch.cat([run(decoder, row[None]) for row in embeddings])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "name",
    ["embedding_multiplier", "attention_multiplier", "residual_multiplier", "logits_scaling"],
)
def test_each_multiplier_counts(name: str):
    def logits(value: float) -> Tensor:
        decoder = random_model(raw_config(decoder={name: value})).decoder
        return decoder.logits(run(decoder, torch.ones(1, 4, 32).cumsum(1)))

    assert not torch.allclose(logits(0.5), logits(1.0))


def test_logits_are_divided_by_their_scaling(decoder: GraniteDecoder):
    hidden = torch.randn(1, 2, 32)
    expected = hidden @ decoder.embed_tokens.weight.T / 8.0
    torch.testing.assert_close(decoder.logits(hidden), expected)


def test_an_untied_head_is_used():
    decoder = random_model(raw_config(tie_word_embeddings=False)).decoder
    hidden = torch.randn(1, 2, 32)
    torch.testing.assert_close(decoder.logits(hidden), decoder.lm_head(hidden) / 8.0)


def test_norm_is_computed_in_float32_and_returned_in_the_inputs_dtype():
    norm = RMSNorm(4, 1e-6).bfloat16()
    big = torch.full((1, 4), 300.0, dtype=torch.bfloat16)  # its square overflows nothing
    assert norm(big).dtype == torch.bfloat16
    torch.testing.assert_close(norm(big).float(), torch.ones(1, 4))
    x = torch.randn(3, 4)
    expected = x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(RMSNorm(4, 1e-6)(x), expected)


def test_logits_are_float32_whatever_the_weights(decoder: GraniteDecoder):
    half = random_model(raw_config()).decoder.bfloat16()
    assert half.logits(torch.randn(1, 1, 32).bfloat16()).dtype == torch.float32


def test_biases_are_built_where_the_config_asks_for_them():
    raw = raw_config(decoder={"attention_bias": True, "mlp_bias": True})
    names = dict(random_model(raw).decoder.named_parameters())
    assert "layers.0.self_attn.q_proj.bias" in names
    assert "layers.0.mlp.down_proj.bias" in names
    plain = random_model(raw_config()).decoder
    assert not [name for name, _ in plain.named_parameters() if name.endswith("bias")]
    assert replace(plain.config, attention_bias=True) != plain.config
