"""What the encoder heard, as numbers and as a picture."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file

import core
import tiny_models
from core.audio.waveform import SAMPLE_RATE
from core.checkpoint.key_map import to_stored
from core.encoder_view import LONGEST_S, EncoderView, Letter, _letters, encoder_view
from core.lab import Lab
from profiling.figures.encoder_view import MAX_COLUMNS, MAX_ROWS, heard_figure, shrunk


def wav(seconds: float) -> bytes:
    rng = np.random.default_rng(0)
    file = io.BytesIO()
    samples = rng.normal(0, 0.1, round(seconds * SAMPLE_RATE))
    soundfile.write(file, samples, SAMPLE_RATE, format="WAV")
    return file.getvalue()


def test_the_sound_and_the_characters_cover_the_same_time(lab: Lab):
    view = encoder_view(lab, wav(2.0))
    assert view.mel.shape == (200, lab.feature_extractor.config.n_mels)
    assert len(view.speech) * view.frame_s == 2.0
    assert not view.cut
    assert all(0 <= letter.at_s < 2.0 for letter in view.letters)


def test_a_long_recording_is_cut_and_says_so(lab: Lab):
    view = encoder_view(lab, wav(LONGEST_S + 3))
    assert view.cut
    assert len(view.speech) * view.frame_s == LONGEST_S


def test_the_adapter_that_is_chosen_is_the_one_that_listens(
    speech_folder: Path, tmp_path: Path
) -> None:
    lab = core.load(speech_folder, device="cpu", dtype="float32")
    before = encoder_view(lab, wav(1.0)).speech
    model = tiny_models.random_model(seed=1)
    prefix = "base_model.model.model."
    whole = tiny_models.random_model(seed=9).encoder.layers[0].state_dict()
    stored = to_stored({f"encoder.layers.0.{k}": v for k, v in whole.items()})
    tensors = tiny_models.write_adapter(tmp_path, model, modules_to_save=["encoder.layers.0"])
    weights = tensors | {prefix + key: value for key, value in stored.items()}
    save_file(weights, tmp_path / "adapter_model.safetensors")
    lab.add_adapter("mine", tmp_path)
    lab.transcribe(torch.randn(16_000), adapter="mine", max_new_tokens=2)
    assert np.array_equal(encoder_view(lab, wav(1.0)).speech, before)
    assert not np.array_equal(encoder_view(lab, wav(1.0), adapter="mine").speech, before)
    with pytest.raises(ValueError, match="no adapter 'yours'"):
        encoder_view(lab, wav(1.0), adapter="yours")


def test_a_run_of_one_label_is_one_letter_at_its_surest_frame():
    table = torch.zeros(6, 128)
    for frame, (character, sure) in enumerate(
        [("a", 0.6), ("a", 0.9), ("\0", 0.8), ("a", 0.7), (" ", 0.9), ("b", 0.5)]
    ):
        table[frame, ord(character)] = sure
    found = [(letter.text, round(letter.at_s, 1)) for letter in _letters(table, 0.1)]
    assert found == [("a", 0.1), ("a", 0.3), ("b", 0.5)]


def test_the_picture_is_small_and_its_letters_stand_where_they_were_said():
    letters = (Letter(0.5, "o", 0.9), Letter(0.7, "n", 0.8))
    mel = np.random.default_rng(0).normal(size=(1200, 80)).astype(np.float32)
    figure = heard_figure(EncoderView(mel, letters, "on", np.zeros(600, np.float32), 0.02, False))
    sound, _, written = figure.data
    assert (len(sound.x), len(sound.z)) == (MAX_COLUMNS, MAX_ROWS)
    assert list(written.x) == [0.5, 0.7]
    assert list(written.text) == ["o", "n"]
    assert len(json.dumps(figure.to_plotly_json(), default=list)) < 150_000


def test_averaging_keeps_the_mean():
    values = np.arange(600, dtype=np.float32).reshape(60, 10)
    small = shrunk(values, 20, 5)
    assert small.shape == (20, 5)
    assert float(small.mean()) == float(values.mean())
