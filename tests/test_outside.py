"""Whether a recording is outside what a model knows: the signs, the scale, and the warning."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bundled import is_outside
from core import load
from core.checkpoint.catalog import ASSETS
from core.checkpoint.catalog import OUTSIDE as KEY
from core.text.transcript import Word
from core.transcription.clip import OUTSIDE
from core.transcription.out_of_domain import (
    SIGNS,
    OutOfDomainScale,
    parse_scale,
    read_scale,
    uncertainty_features,
)
from training.stages.calibrate import Judged, alarms, fit, run

ALWAYS = OutOfDomainScale(100.0, (0.0,) * 4, 0.5)
NEVER = replace(ALWAYS, bias=-100.0)


def heard(text: str, sure: float) -> Tensor:
    """CTC logits [T, 256] of a text, two frames a letter and a blank after it."""
    labels = [label for character in text for label in (ord(character),) * 2 + (0,)]
    return sure * torch.nn.functional.one_hot(torch.tensor(labels), 256).float()


def words(text: str, confidence: float) -> list[Word]:
    return [Word(word, None, None, confidence) for word in text.split()]


def test_a_text_that_fits_its_sound_has_smaller_signs_than_one_that_does_not() -> None:
    right = uncertainty_features(heard("one two", 12.0), words("one two", 0.99))
    wrong = uncertainty_features(heard("juliet", 5.0), words("two oh", 0.6))
    assert right is not None
    assert wrong is not None
    for name, small, large in zip(SIGNS, right, wrong, strict=True):
        assert small < large, name


def test_without_text_or_sound_there_is_nothing_to_judge() -> None:
    assert uncertainty_features(heard("one", 9.0), []) is None
    assert uncertainty_features(torch.zeros(10, 256), words("one", 0.9)) is None
    assert not ALWAYS.warns(heard("one", 9.0), [])


def test_a_text_too_long_for_its_sound_is_a_misfit_and_no_infinity() -> None:
    signs = uncertainty_features(heard("a", 9.0), words("a very long text for two frames", 0.9))
    assert signs is not None
    assert all(abs(sign) < 10 for sign in signs)


def test_a_scale_is_read_as_it_was_written(tmp_path: Path) -> None:
    scale = OutOfDomainScale(-1.5, (0.1, 0.2, 0.3, 0.4), 0.9)
    described = {"family": "tiny", KEY: scale.as_dict()}
    (tmp_path / "lab.json").write_text(json.dumps(described))
    assert read_scale(tmp_path) == scale
    (tmp_path / "lab.json").write_text('{"family": "tiny"}')
    assert read_scale(tmp_path) is None


@pytest.mark.parametrize(
    "raw",
    [
        3,
        {"bias": 1},
        {"bias": 0, "limit": 1, "weights": {"misfit": 1}},
        {"bias": "x", "limit": 1, "weights": dict.fromkeys(SIGNS, 1)},
        {"bias": float("nan"), "limit": 1, "weights": dict.fromkeys(SIGNS, 1)},
    ],
)
def test_a_scale_that_is_none_is_refused_with_what_was_expected(raw: object) -> None:
    with pytest.raises(ValueError, match=r"lab\.json: 'outside' .*; expected"):
        parse_scale(raw, "lab.json")


@pytest.mark.parametrize(
    ("content", "told"), [("{", "not valid JSON"), ("[]", "not a JSON object")]
)
def test_a_description_that_cannot_be_read_is_named(
    tmp_path: Path, content: str, told: str
) -> None:
    (tmp_path / "lab.json").write_text(content)
    with pytest.raises(ValueError, match=rf"lab\.json: {told}"):
        read_scale(tmp_path)


@pytest.mark.parametrize(("scale", "warned"), [(ALWAYS, True), (NEVER, False)])
def test_only_transcripts_by_the_checkpoints_own_adapter_are_judged(
    tmp_path: Path, scale: OutOfDomainScale, warned: bool
) -> None:
    folder, recording = tmp_path / "model", str(ASSETS / "examples" / "digit_five.flac")
    shutil.copytree(ASSETS / "tiny", folder)
    known = json.loads((folder / "lab.json").read_text())
    (folder / "lab.json").write_text(json.dumps(known | {KEY: scale.as_dict()}))
    lab = load(folder)
    assert (OUTSIDE in lab.transcribe(recording).warnings) is warned
    assert (OUTSIDE in lab.transcribe(recording, decoding="speculative").warnings) is warned
    assert OUTSIDE not in lab.transcribe(recording, lora=False).warnings
    assert (
        OUTSIDE not in lab.transcribe(recording, task="instruct", instruction="repeat it").warnings
    )


def test_the_bundled_recordings_are_inside_what_the_bundled_model_knows() -> None:
    lab = load("tiny")
    recordings = sorted((ASSETS / "examples").glob("*.flac"))
    warned = {file.name for file in recordings if lab.transcribe(str(file)).warnings}
    assert recordings
    assert warned == {file.name for file in recordings if is_outside(file.name)}
    assert lab.autoregressive.out_of_domain is not None


def judged(*, outside: bool, around: float, count: int, fitted: bool) -> list[Judged]:
    rng = torch.Generator().manual_seed(int(fitted) + 2 * int(outside))
    signs = around + torch.randn((count, 4), generator=rng)
    group = "others" if outside else "ours"
    return [Judged(tuple(row), outside, group, fitted) for row in signs.tolist()]


def test_a_fitted_scale_keeps_its_false_alarms_on_clips_it_never_saw() -> None:
    both = [
        one
        for fitted in (True, False)
        for outside, around in ((False, 0.0), (True, 2.0))
        for one in judged(outside=outside, around=around, count=400, fitted=fitted)
    ]
    scale = fit([one for one in both if one.fitted])
    ours, others = alarms(scale, both)
    assert (ours.group, others.group, ours.count) == ("ours", "others", 400)
    assert ours.share < 0.06
    assert others.share > 0.8
    with pytest.raises(ValueError, match="0 of 5 clips are outside.*; expected some of either"):
        fit(judged(outside=False, around=0.0, count=5, fitted=True))


def test_a_warning_on_a_misheard_clip_is_no_false_alarm() -> None:
    misheard = [
        replace(one, right=False)
        for fitted in (True, False)
        for one in judged(outside=False, around=2.0, count=200, fitted=fitted)
    ]
    others = [
        one
        for fitted in (True, False)
        for outside, around in ((False, 0.0), (True, 2.0))
        for one in judged(outside=outside, around=around, count=400, fitted=fitted)
    ]
    alone, both = fit(others), fit(others + misheard)
    assert alone == both
    found = {one.kind: one.share for one in alarms(both, others + misheard)}
    assert found["inside"] < 0.06 < 0.5 < found["misheard"]


def test_a_corpus_without_recordings_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no recordings inside the domain in the splits dev"):
        run("tiny", (tmp_path, ["dev"]), (tmp_path, ["novel"]))
