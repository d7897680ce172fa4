"""Log-mel features with deltas against transformers, and which files state the front end.

Run alone: ``python -m pytest tests/test_delta_features.py``.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from core.checkpoint.config_granite_speech5_ctc import STANDARD_FRONT_END, read_delta_features
from core.checkpoint.hub import CheckpointFiles
from core.model.config import ConfigError
from core.model.delta_features import DeltaFeatureConfig, DeltaLogMel
from core.model.features import MIN_SAMPLES, pad_features
from granite_speech5 import ctc_config
from oracle import transformers
from tiny_models import noise

SAMPLES = (257, 319, 320, 321, 480, 16_000, 16_001, 16_159, 16_160)


def reference_features(*clips: Tensor, **settings: Any) -> dict[str, Tensor]:
    extractor = transformers.GraniteSpeech5FeatureExtractor(**settings)
    return extractor([clip.numpy() for clip in clips], sampling_rate=16_000)


@pytest.mark.oracle
@pytest.mark.parametrize("samples", SAMPLES)
def test_features_of_one_clip_are_the_references(samples: int):
    waveform = noise(samples / 16_000, seed=samples)
    expected = reference_features(waveform)
    found = DeltaLogMel(STANDARD_FRONT_END)(waveform)
    assert torch.equal(found, expected["input_features"][0])
    rows = int(expected["attention_mask"].sum())
    assert STANDARD_FRONT_END.num_frames(samples) == len(found) == rows


@pytest.mark.oracle
@pytest.mark.parametrize("samples", [0, 1, 159, 160, 161, 256])
def test_a_clip_shorter_than_one_window_says_how_long_it_must_be(samples: int):
    # The reference fails in its reflection, or without one frame.
    with pytest.raises(RuntimeError):
        reference_features(noise(samples / 16_000))
    with pytest.raises(ValueError, match=f"has {samples} samples; at least {MIN_SAMPLES}"):
        DeltaLogMel(STANDARD_FRONT_END)(noise(samples / 16_000))


@pytest.mark.oracle
def test_another_front_end_is_the_references_too():
    changes = {"num_mel_bins": 6, "win_length": 320, "delta_win_length": 5}
    config = DeltaFeatureConfig(16_000, 512, 320, 160, 6, 5)
    waveform = noise(0.31)
    expected = reference_features(waveform, **changes)["input_features"][0]
    assert torch.equal(DeltaLogMel(config)(waveform), expected)


def test_a_row_is_two_frames_each_with_its_change():
    found = DeltaLogMel(STANDARD_FRONT_END)(noise(0.5))  # [25, 320]
    frames = found.reshape(-1, 2, 80)  # [50, 2, 80]
    log_mel, deltas = frames[:, 0], frames[:, 1]
    torch.testing.assert_close(deltas[1:-1], (log_mel[2:] - log_mel[:-2]) / 2)
    torch.testing.assert_close(deltas[0], (log_mel[1] - log_mel[0]) / 2)
    torch.testing.assert_close(deltas[-1], (log_mel[-1] - log_mel[-2]) / 2)


@pytest.mark.oracle
def test_in_a_batch_only_the_last_two_rows_of_the_reference_depend_on_its_neighbours():
    clips = [noise(1.0, seed=1), noise(0.333, seed=2)]
    expected = reference_features(*clips)
    batch = pad_features([DeltaLogMel(STANDARD_FRONT_END)(clip) for clip in clips])
    assert list(batch.lengths) == expected["attention_mask"].sum(-1).tolist() == [50, 17]
    difference = (batch.values - expected["input_features"]).abs().amax(-1)
    assert difference[0].max() == 0
    assert difference[1, :15].max() < 1e-6
    assert difference[1, 15:17].max() > 1e-3


def read(folder: Path, **files: dict[str, Any]) -> DeltaFeatureConfig:
    for name, text in files.items():
        (folder / f"{name}.json").write_text(json.dumps(text))
    bins = 20 if files else 80
    return read_delta_features(CheckpointFiles("here", folder, {}), ctc_config(num_mel_bins=bins))


# As transformers writes it.
STATED = {
    "feature_extractor_type": "GraniteSpeech5FeatureExtractor",
    "delta_win_length": 3,
    "feature_size": 80,
    "hop_length": 160,
    "logmel_floor_db": 8.0,
    "n_fft": 400,
    "num_mel_bins": 20,
    "sampling_rate": 16_000,
    "win_length": 400,
}
OLDER = {"feature_extractor_type": "LogMelExtractor", "feature_size": 64}


def test_the_front_end_is_read_from_the_processors_file(tmp_path: Path):
    live = {"feature_extractor": STATED, "processor_class": "GraniteSpeech5Processor"}
    found = read(tmp_path, processor_config=live, preprocessor_config=OLDER)
    assert found == DeltaFeatureConfig(16_000, 400, 400, 160, 20, 3)


def test_a_preprocessor_file_counts_only_if_it_is_this_familys(tmp_path: Path):
    assert read(tmp_path) == STANDARD_FRONT_END
    assert read(tmp_path, preprocessor_config=STATED).n_fft == 400
    with pytest.raises(ConfigError, match="320 values; the encoder expects 80"):
        read(tmp_path, preprocessor_config=OLDER)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sampling_rate": 8_000}, "wants 8000 Hz; expected 16000"),
        ({"logmel_floor_db": 10.0}, "logmel_floor_db is 10.0; expected 8.0"),
        ({"num_mel_bins": 21}, "84 values; the encoder expects 80"),
    ],
)
def test_a_front_end_that_does_not_fit_is_refused(
    change: dict[str, Any], said: str, tmp_path: Path
):
    with pytest.raises(ConfigError, match=f"^here: .*{said}"):
        read(tmp_path, processor_config={"feature_extractor": {**STATED, **change}})
