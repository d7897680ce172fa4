"""Batches through the encoder a few clips at a time: the same numbers, less padding."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from core.engine import encode as encode_batch
from core.engine.encode import encode_in_groups
from core.engine.stages import Engine
from core.lab import Lab
from core.model.features import pad_features
from core.model.lora import switch


def recorded(engine: Engine) -> tuple[Engine, list[tuple[int, ...]]]:
    """The engine, and the shapes of the features its encoder was given."""
    shapes: list[tuple[int, ...]] = []

    def encode(values: Tensor, *more: Any) -> Any:
        shapes.append(tuple(values.shape[:2]))
        return engine.encode(values, *more)

    return replace(engine, encode=encode), shapes


@pytest.mark.parametrize("at_once", [1, 60, 100, 10_000])
def test_groups_give_what_one_batch_gives(
    lab: Lab, noise: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch, at_once: int
):
    clips = [
        lab.feature_extractor(noise(seconds, seed=i)) for i, seconds in enumerate((0.3, 1.1, 0.7))
    ]
    lengths = [clip.shape[0] for clip in clips]
    engine = lab.engine("eager")
    features = pad_features(clips, engine.frames_bucket(max(lengths)))
    values = features.values
    lora = switch([True, False, True], like=values)
    with torch.inference_mode():
        whole = engine.encode(values, torch.tensor(lengths), lora)
        monkeypatch.setattr(encode_batch, "FRAMES_AT_ONCE", at_once)
        found = encode_in_groups(engine, features, lora)
    assert found.frames.shape == whole.frames.shape
    for row, length in enumerate(lengths):
        for name in ("frames", "ctc_logits", "mid_ctc_logits"):
            got, expected = getattr(found, name), getattr(whole, name)
            assert torch.allclose(got[row, :length], expected[row, :length], atol=1e-4), name
        assert not found.frames[row, length:].any()


def test_short_clips_are_not_padded_to_the_longest_of_the_batch(
    lab: Lab, noise: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
):
    engine, shapes = recorded(lab.engine("eager"))
    monkeypatch.setitem(lab.autoregressive._engines, "eager", engine)
    monkeypatch.setattr(encode_batch, "FRAMES_AT_ONCE", 60)
    options = {"max_new_tokens": 4, "ignore_eos": True, "skip_silence": False}
    clips = [noise(1.1), noise(0.3, seed=1), noise(0.7, seed=2)]
    together = lab.transcribe_batch(clips, **options)
    # Above one block of 20 frames in steps of 25, but never more than whole blocks.
    assert shapes == [(1, 60), (1, 15), (1, 40)]
    alone = [lab.transcribe(clip, **options).token_ids for clip in clips]
    assert [one.token_ids for one in together] == alone
