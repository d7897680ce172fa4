"""The conformer: relative positions, blocks, masks, and independence from padding and neighbours.

Run alone: ``python -m pytest tests/test_encoder.py``.
"""

import pytest
import torch
from torch import Tensor

from core.model.encoder import (
    ConformerEncoder,
    DepthwiseConv,
    EncoderOutput,
    padded_length,
)
from core.model.features import pad_features
from core.model.shaw_attention import relative_rows, shift_relative
from tiny_models import random_model, raw_config

BLOCK = 20


@pytest.fixture(scope="module")
def encoder() -> ConformerEncoder:
    return random_model(raw_config()).encoder


def encode(encoder: ConformerEncoder, *clips: Tensor, length: int | None = None) -> EncoderOutput:
    batch = pad_features(list(clips), length or padded_length(max(map(len, clips)), BLOCK))
    with torch.inference_mode():
        return encoder(batch.values, torch.tensor(batch.lengths))


def clip(frames: int) -> Tensor:
    return torch.randn(frames, 160, generator=torch.Generator().manual_seed(frames))


def close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=0, atol=2e-5 * b.abs().max().item())


@pytest.mark.parametrize("block", [1, 2, 5, 20])
def test_the_shift_is_a_gather_by_relative_distance(block: int):
    scores = torch.randn(2, 3, block, 2 * block - 1)
    expected = torch.stack(
        [
            torch.stack([scores[..., i, j - i + block - 1] for j in range(block)], dim=-1)
            for i in range(block)
        ],
        dim=-2,
    )
    assert torch.equal(shift_relative(scores), expected)


def test_position_terms_are_shaws(encoder: ConformerEncoder):
    # The definition: query i, key j, the learned row of distance i - j.
    attention = encoder.layers[0].attn
    width = attention.rel_pos_emb.embedding_dim
    q = torch.randn(1, attention.num_heads, BLOCK, width)
    middle = attention.rel_pos_emb.num_embeddings // 2
    distance = torch.arange(BLOCK)[:, None] - torch.arange(BLOCK) + middle
    rows = attention.rel_pos_emb(distance)  # [C, C, d]
    expected = torch.einsum("nhid,ijd->nhij", q, rows)
    found = shift_relative(q @ relative_rows(attention.rel_pos_emb.weight, BLOCK).T)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kernel", [1, 2, 7, 8, 15])
def test_the_convolution_keeps_the_length(kernel: int):
    assert DepthwiseConv(4, kernel)(torch.randn(2, 4, 9)).shape == (2, 4, 9)


@pytest.mark.parametrize("frames", [1, 7, 19, 20, 21, 39, 40, 41])
def test_padding_does_not_change_real_frames(frames: int, encoder: ConformerEncoder):
    alone = encode(encoder, clip(frames))
    for blocks in (2, 3, 5):
        if blocks * BLOCK < frames:
            continue
        padded = encode(encoder, clip(frames), length=blocks * BLOCK)
        for name in EncoderOutput._fields:
            found, expected = getattr(padded, name)[:, :frames], getattr(alone, name)[:, :frames]
            assert close(found, expected), name
        assert not padded.frames[:, frames:].any()


def test_a_clip_is_the_same_alone_and_among_seven_others(encoder: ConformerEncoder):
    clips = [clip(frames) for frames in (1, 15, 19, 20, 21, 60, 77, 95)]
    together = encode(encoder, *clips)
    for row, features in enumerate(clips):
        alone = encode(encoder, features)
        for name in EncoderOutput._fields:
            expected = getattr(alone, name)[0, : len(features)]
            assert close(getattr(together, name)[row, : len(features)], expected), name


def test_what_lies_in_the_padding_is_never_read(encoder: ConformerEncoder):
    values = pad_features([clip(33)], 3 * BLOCK).values
    with torch.inference_mode():
        clean = encoder(values, torch.tensor([33])).frames
        values[:, 33:] = 1e4 * torch.randn(1, 27, 160)
        dirty = encoder(values, torch.tensor([33])).frames
    assert torch.equal(clean, dirty)


def test_attention_stays_inside_its_block(encoder: ConformerEncoder):
    # A change in the third of three blocks. In the first layer the convolution carries it 7 frames
    # into the second block; in the second layer attention spreads it there, and the convolution
    # carries it 7 frames into the first block, to frame 13.
    values = pad_features([clip(60)], 60).values
    changed = values.clone()
    changed[:, 59] += 5
    with torch.inference_mode():
        before, after = (encoder(v, torch.tensor([60])).frames for v in (values, changed))
    moved = (before != after).any(-1)[0]
    assert moved[40:].all()
    assert not moved[:13].any()
    assert moved[13:].all()


def test_the_middle_posteriors_feed_the_later_layers():
    model = random_model(raw_config())
    before = encode(model.encoder, clip(30))
    with torch.no_grad():
        model.encoder.out_mid.bias += 3 * torch.randn(32)
    after = encode(model.encoder, clip(30))
    assert torch.equal(before.mid_ctc_logits, after.mid_ctc_logits)
    assert not close(before.ctc_logits, after.ctc_logits)
    assert before.ctc_logits.shape == (1, 40, 42)


@pytest.mark.parametrize("frames", [21, 33, 39, 59])
def test_a_last_block_that_is_not_full_equals_one_that_was_filled_up(
    encoder: ConformerEncoder, frames: int
):
    exact, filled = encode(encoder, clip(frames), length=frames), encode(encoder, clip(frames))
    assert exact.frames.shape[1] == frames < filled.frames.shape[1]
    for one, other in zip(exact, filled, strict=True):
        assert close(one, other[:, :frames])


def test_clips_of_a_batch_need_not_fill_their_last_blocks(encoder: ConformerEncoder):
    together = encode(encoder, clip(33), clip(47), clip(5), length=47)
    for row, frames in enumerate((33, 47, 5)):
        alone = encode(encoder, clip(frames), length=frames)
        assert close(together.frames[row, :frames], alone.frames[0])
        assert not together.frames[row, frames:].any()


def test_padded_lengths():
    lengths = [padded_length(n, 200) for n in (1, 199, 200, 201, 400, 401)]
    assert lengths == [1, 199, 200, 400, 400, 600]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_finite_with_whole_blocks_of_padding(dtype: torch.dtype):
    encoder = random_model(raw_config()).encoder.to(dtype)
    batch = pad_features([clip(5), clip(90)], 100)
    with torch.inference_mode():
        out = encoder(batch.values.to(dtype), torch.tensor(batch.lengths))
    assert all(torch.isfinite(part).all() for part in out)
