"""Workloads: frozen, checked, and the same after a trip through JSON.

Run alone: ``python -m pytest tests/test_workload.py``.
"""

import json
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest

from core.audio.waveform import AudioError
from core.lab import Lab
from measuring import RECORDING, workload
from profiling.measure.workload import ClipInfo, Workload


def test_a_workload_survives_json(lab: Lab):
    one = workload(lab, engine="compile", lora=None, seed=3)
    assert Workload.from_json(json.loads(json.dumps(one.to_json()))) == one


def test_where_a_recording_lies_stays_private(lab: Lab):
    clip = replace(workload(lab).clip, path="/home/somebody/noise.wav")
    assert workload(lab, clip=clip).to_json()["clip"]["path"] == "noise.wav"


def test_a_run_from_before_quantised_weights_is_still_read(lab: Lab):
    raw = workload(lab).to_json()
    del raw["quantize"]
    assert Workload.from_json(raw) == workload(lab)
    assert workload(lab, quantize="int8").label().endswith("greedy, int8")


def test_a_workload_is_frozen(lab: Lab):
    with pytest.raises(FrozenInstanceError):
        workload(lab).engine = "compile"


def test_options_never_skip_silence_and_are_what_a_transcription_takes(lab: Lab):
    options = workload(lab, decoding="speculative").options()
    assert (options["skip_silence"], options["decoding"]) == (False, "speculative")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"engine": "fast"}, "engine is 'fast'"),
        ({"threads": 0}, "threads is 0"),
        ({"num_beams": 3}, "num_beams came with decoding 'greedy'"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
    ],
)
def test_wrong_workloads_are_refused(lab: Lab, change: dict, message: str):
    with pytest.raises(ValueError, match=message):
        workload(lab, **change)


@pytest.mark.parametrize("damage", ["missing", "unknown", "clip"])
def test_foreign_json_is_refused(lab: Lab, damage: str):
    raw = workload(lab).to_json()
    if damage == "missing":
        del raw["engine"]
    elif damage == "unknown":
        raw["speed"] = 3
    else:
        raw["clip"] = "clip.wav"
    with pytest.raises(ValueError, match="workload"):
        Workload.from_json(raw)


def test_a_clip_is_measured_and_hashed(tmp_path: Path):
    file = tmp_path / "noise.wav"
    file.write_bytes(RECORDING)
    clip = ClipInfo.of(file)
    assert (clip.name, clip.seconds, len(clip.sha256)) == ("noise.wav", 2.0, 64)
    with pytest.raises(AudioError, match="cannot be read"):
        ClipInfo.of(tmp_path / "none.wav")


def test_different_work_is_named(lab: Lab):
    one = workload(lab)
    assert one.same_work(workload(lab, engine="compile", decoding="speculative")) == []
    clip = replace(one.clip, sha256="1" * 64)
    assert one.same_work(workload(lab, clip=clip, max_new_tokens=5)) == ["clip", "max_new_tokens"]


def test_labels_say_engine_adapter_and_decoding(lab: Lab):
    assert workload(lab, lora=True).label() == "eager, LoRA on, greedy"
    assert workload(lab, lora=None, engine="compile").label() == "compile, no LoRA, greedy"
