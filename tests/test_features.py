"""Log-mel features and the arithmetic of lengths.

Run alone: ``python -m pytest tests/test_features.py``.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from core.checkpoint.hub import CheckpointFiles
from core.model.features import (
    MIN_SAMPLES,
    FeatureConfig,
    LogMel,
    log_compress,
    num_audio_tokens,
    pad_features,
    stack_frames,
)
from core.transcription.autoregressive import read_feature_config
from tiny_models import noise, samples_of_frames

CONFIG = FeatureConfig(16_000, 512, 400, 160, 80)


@pytest.mark.parametrize(
    ("samples", "frames", "tokens"),
    [
        # 10 ms a mel frame, two to a frame, fifteen frames to three tokens.
        (257, 1, 3),
        (320, 1, 3),
        (480, 2, 3),
        (16_000, 50, 12),
        (samples_of_frames(15), 15, 3),
        (samples_of_frames(15, 319), 15, 3),
        (samples_of_frames(16), 16, 6),
        (160_000, 500, 102),
        (640_000, 2000, 402),
    ],
)
def test_lengths_of_known_clips(samples: int, frames: int, tokens: int):
    assert CONFIG.num_frames(samples) == frames
    assert LogMel(CONFIG)(torch.randn(samples)).shape == (frames, 160)
    assert num_audio_tokens(frames, window=15, downsample=5) == tokens


def test_frames_are_counted_back_into_seconds():
    assert CONFIG.seconds_of_frames(500) == 10.0


def test_a_clip_shorter_than_one_window_says_how_long_it_must_be():
    with pytest.raises(ValueError, match=f"256 samples; at least {MIN_SAMPLES}"):
        LogMel(CONFIG)(torch.zeros(256))
    assert LogMel(CONFIG)(torch.zeros(257)).shape == (1, 160)


def test_only_one_mono_waveform_is_taken():
    with pytest.raises(ValueError, match=r"\[N\], got shape \(2, 1000\)"):
        LogMel(CONFIG)(torch.zeros(2, 1000))


def test_loudness_beyond_80_db_below_the_maximum_is_cut():
    power = torch.tensor([[1.0, 1e-3, 1e-8, 1e-12]])  # log10: 0, -3, -8, below the floor of -8
    assert log_compress(power).tolist() == [[1.0, 0.25, -1.0, -1.0]]


def test_silence_gives_finite_features():
    assert torch.isfinite(LogMel(CONFIG)(torch.zeros(16_000))).all()


def test_pairs_of_frames_lie_side_by_side_and_an_odd_last_is_dropped():
    frames = torch.arange(10.0).reshape(5, 2)
    assert stack_frames(frames).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_padding_is_zero_and_keeps_the_clips():
    clips = [torch.ones(3, 4), torch.ones(5, 4)]
    batch = pad_features(clips, 8)
    assert batch.lengths == (3, 5)
    assert batch.values.shape == (2, 8, 4)
    assert batch.values.sum(dim=(1, 2)).tolist() == [12, 20]
    assert pad_features(clips).values.shape == (2, 5, 4)
    with pytest.raises(ValueError, match="5 frames do not fit a bucket of 4"):
        pad_features(clips, 4)


def test_louder_recordings_have_the_same_shape_of_features():
    # Ten times the amplitude is two log10 units of power: half a unit after compression.
    quiet, loud = (LogMel(CONFIG)(noise(1.0) * gain) for gain in (1.0, 10.0))
    torch.testing.assert_close(loud, quiet + 0.5, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("preprocessor_config.json", {"sampling_rate": 16_000, "n_mels": 64}),
        ("preprocessor_config.json", {"melspec_kwargs": {"n_mels": 64, "sample_rate": 16_000}}),
        ("preprocessor_config.json", {"feature_size": 64}),
        ("processor_config.json", {"audio_processor": {"melspec_kwargs": {"n_mels": 64}}}),
    ],
)
def test_the_front_end_is_read_wherever_it_is_kept(file: str, text: dict[str, Any], tmp_path: Path):
    (tmp_path / file).write_text(json.dumps(text))
    found = read_feature_config(CheckpointFiles("here", tmp_path, {}))
    assert found == FeatureConfig(16_000, 512, 400, 160, 64)


def test_without_a_file_the_familys_front_end_is_taken(tmp_path: Path):
    assert read_feature_config(CheckpointFiles("here", tmp_path, {})) == CONFIG


@pytest.mark.parametrize(
    "text", [{"sampling_rate": 8_000}, {"melspec_kwargs": {"sample_rate": 8_000}}]
)
def test_a_front_end_for_another_rate_is_refused(text: dict[str, Any], tmp_path: Path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(text))
    with pytest.raises(ValueError, match="wants 8000 Hz; expected 16000"):
        read_feature_config(CheckpointFiles("here", tmp_path, {}))
