"""What a machine offers can be loaded on it."""

import pytest

import core
from core.devices import devices, dtypes, quantisers
from core.lab import Lab
from core.loading import pick_device


def test_the_first_device_is_the_default_one():
    assert devices()[-1] == "cpu"
    assert pick_device(devices()[0]).type == pick_device(None).type


@pytest.mark.parametrize("dtype", dtypes("cpu"))
def test_every_number_format_offered_for_a_cpu_transcribes(lab: Lab, noise, dtype: str):
    other = core.load(lab.files.folder, device="cpu", dtype=dtype)
    assert other.transcribe(noise(1.0), max_new_tokens=3, skip_silence=False).new_tokens > 0


@pytest.mark.parametrize("quantize", quantisers("cpu"))
def test_every_quantiser_offered_for_a_cpu_transcribes(lab: Lab, noise, quantize: str):
    other = core.load(lab.files.folder, device="cpu", quantize=quantize)
    assert other.transcribe(noise(1.0), max_new_tokens=3, skip_silence=False).new_tokens > 0
