"""Windows of encoder frames become audio embeddings, each window by itself.

Run alone: ``python -m pytest tests/test_projector.py``.
"""

import pytest
import torch

from core.model.features import num_audio_tokens
from core.model.projector import Projector, split_into_windows
from tiny_models import random_model, raw_config


@pytest.fixture(scope="module")
def projector() -> Projector:
    return random_model(raw_config()).projector


def test_frames_are_cut_in_order_and_the_last_window_is_filled_with_zeros():
    windows = split_into_windows(torch.arange(1.0, 8).reshape(1, 7, 1), 3)
    assert windows[..., 0].tolist() == [[1, 2, 3], [4, 5, 6], [7, 0, 0]]


def test_windows_of_a_batch_lie_clip_by_clip():
    frames = torch.arange(12.0).reshape(2, 6, 1)
    assert split_into_windows(frames, 3)[:, 0, 0].tolist() == [0, 3, 6, 9]


def test_frames_without_a_batch_are_refused():
    with pytest.raises(ValueError, match=r"\[B, T, D\], got shape \(4, 5\)"):
        split_into_windows(torch.zeros(4, 5), 3)


@pytest.mark.parametrize("frames", [1, 14, 15, 16, 30, 31])
def test_as_many_embeddings_as_the_prompt_reserves(frames: int, projector: Projector):
    expected = num_audio_tokens(frames, window=15, downsample=5)
    assert projector(torch.randn(2, frames, 32)).shape == (2, expected, 32)


def test_a_window_does_not_see_the_others(projector: Projector):
    frames = torch.randn(1, 45, 32)
    with torch.inference_mode():
        whole = projector(frames)
        parts = [projector(frames[:, start : start + 15]) for start in (0, 15, 30)]
    torch.testing.assert_close(whole, torch.cat(parts, dim=1), rtol=1e-3, atol=1e-3)


def test_zero_frames_after_the_end_change_nothing(projector: Projector):
    frames = torch.randn(1, 20, 32)
    longer = torch.nn.functional.pad(frames, (0, 0, 0, 40))
    with torch.inference_mode():
        torch.testing.assert_close(
            projector(longer)[:, :6], projector(frames), rtol=1e-3, atol=1e-3
        )


def test_layers_between_cross_attention_have_none():
    raw = raw_config(projector={"num_hidden_layers": 4, "cross_attention_frequency": 2})
    layers = random_model(raw).projector.layers
    assert [layer.crossattention is not None for layer in layers] == [True, False, True, False]
