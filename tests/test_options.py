"""A request's options: what is refused, and what generation makes of the rest.

Run alone: ``python -m pytest tests/test_options.py``.
"""

from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor

from core.lab import Lab
from core.transcription.options import TranscribeOptions


def test_a_misspelt_option_is_a_type_error(lab: Lab, noise: Callable[..., Tensor]):
    for call in (lab.transcribe, lab.stream):
        with pytest.raises(TypeError, match="max_tokens"):
            call(noise(1.0), max_tokens=5)
    with pytest.raises(TypeError):
        lab.chat("hello", loraa=True)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"task": "sing"}, "task is 'sing'; expected one of transcribe, translate, instruct"),
        ({"engine": "warp"}, "engine is 'warp'; expected one of eager, compile"),
        ({"decoding": "magic"}, "decoding is 'magic'"),
        ({"keywords": "ohm"}, "expected a list of words"),
        ({"num_beams": 3}, "expected 'beam'"),
        ({"temperature": 0.5}, "expected 'sample'"),
        ({"max_new_tokens": 0}, "expected at least 1"),
        ({"top_p": 2.0}, "above 0, at most 1"),
        ({"language": "xx"}, "got 'xx'"),
        ({"task": "instruct"}, "without an instruction"),
        ({"task": "instruct", "instruction": "a <|audio|> b"}, "reserves"),
        ({"task": "translate"}, "needs a target language"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": "4"}, "batch_size is '4'; expected a whole number"),
        ({"max_new_tokens": 5.5}, "max_new_tokens is 5.5; expected a whole number"),
        ({"max_new_tokens": True}, "expected a whole number"),
        ({"top_p": None}, "top_p is None; expected a number"),
        ({"lora": "on"}, "lora is 'on'; expected true or false"),
        ({"instruction": 3}, "expected text"),
        ({"keywords": [3]}, "expected a list of words"),
        ({"seed": 10**30}, "64 bits"),
        ({"repetition_penalty": float("inf")}, "above 0"),
    ],
)
def test_wrong_options_are_refused_before_the_recording_is_opened(
    options: dict[str, Any], told: str, lab: Lab
):
    with pytest.raises(ValueError, match=told):
        lab.transcribe("no-such-file.wav", **options)


def test_options_become_what_generation_understands():
    beam = TranscribeOptions(decoding="beam").generation()
    assert (beam.num_beams, beam.temperature) == (4, 0)
    sample = TranscribeOptions(decoding="sample", top_p=0.5, seed=3).generation()
    assert (sample.num_beams, sample.temperature, sample.top_p, sample.seed) == (1, 0.7, 0.5, 3)
    request = TranscribeOptions(keywords=[" ohm ", "", "volt"]).request()
    assert request.keywords == ("ohm", "volt")
