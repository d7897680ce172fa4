"""What the encoder heard, as numbers and as a picture."""

from __future__ import annotations

import io
import json

import numpy as np
import soundfile
import torch

from core.hearing import LONGEST_S, Hearing, Letter, _letters, hear
from core.lab import Lab
from core.samples import SAMPLE_RATE
from profiling.figures_heard import MAX_COLUMNS, MAX_ROWS, heard_figure, shrunk


def wav(seconds: float) -> bytes:
    rng = np.random.default_rng(0)
    file = io.BytesIO()
    samples = rng.normal(0, 0.1, round(seconds * SAMPLE_RATE))
    soundfile.write(file, samples, SAMPLE_RATE, format="WAV")
    return file.getvalue()


def test_the_sound_and_the_characters_cover_the_same_time(lab: Lab):
    hearing = hear(lab, wav(2.0))
    assert hearing.mel.shape == (200, lab.front_end.config.n_mels)
    assert len(hearing.speech) * hearing.frame_s == 2.0
    assert not hearing.cut
    assert all(0 <= letter.at_s < 2.0 for letter in hearing.letters)


def test_a_long_recording_is_cut_and_says_so(lab: Lab):
    hearing = hear(lab, wav(LONGEST_S + 3))
    assert hearing.cut
    assert len(hearing.speech) * hearing.frame_s == LONGEST_S


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
    figure = heard_figure(Hearing(mel, letters, "on", np.zeros(600, np.float32), 0.02, False))
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
