"""The bundled model: what it hears, and that transformers reads it as it is.

Run alone: ``python -m pytest tests/test_bundled_model.py``.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import core
from bundled import EXAMPLES, inside
from core.audio.decode import load_audio
from core.checkpoint.catalog import CATALOG
from core.lab import Lab
from core.text.prompts import Request
from oracle import transformers

BUNDLED = Path(CATALOG["tiny"].source)
needs_bundled_model = pytest.mark.skipif(
    not (BUNDLED / "config.json").is_file(),
    reason="assets/tiny is not there: make it with `make demo-model`",
)


def errors_between(said: str, heard: str) -> int:
    """Word errors by dynamic programming (Levenshtein distance)."""
    reference, found = said.split(), heard.split()
    row = list(range(len(found) + 1))
    for i, word in enumerate(reference, start=1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(found, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other))
    return row[-1]


@pytest.fixture(scope="module")
def tiny() -> Lab:
    return core.load("tiny", device="cpu", dtype="float32")


@needs_bundled_model
def test_the_bundled_model_is_far_worse_without_its_adapter(tiny: Lab):
    said = list(inside().values())
    files = [EXAMPLES / name for name in inside()]
    errors = {
        state: sum(
            errors_between(text, found.text.lower())
            for text, found in zip(said, tiny.transcribe_batch(files, lora=state), strict=True)
        )
        for state in (True, False)
    }
    num_words = sum(len(text.split()) for text in said)
    assert errors[True] <= 0.05 * num_words  # real recordings it never saw
    assert errors[False] > num_words / 2


@needs_bundled_model
def test_the_bundled_model_hears_nothing_in_silence_and_hiss(
    tiny: Lab, noise: Callable[..., Tensor]
):
    for waveform in (torch.zeros(32_000), noise(2.0) * 0.005):
        assert tiny.transcribe(waveform).text == ""


@pytest.mark.oracle
@needs_bundled_model
def test_the_bundled_model_loads_unchanged_through_transformers(tiny: Lab):
    reference = transformers.GraniteSpeechForConditionalGeneration.from_pretrained(
        BUNDLED, dtype=torch.float32
    ).eval()
    extractor = transformers.GraniteSpeechFeatureExtractor.from_pretrained(BUNDLED)
    request = Request("transcribe", None, None, (), None)
    for name in list(inside())[:3]:
        waveform = load_audio(EXAMPLES / name)
        heard = extractor(waveform)
        ids = tiny.autoregressive.components.prompts.speech(
            request, int(heard["audio_embed_sizes"][0])
        )
        out = reference.generate(
            input_ids=torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            input_features=heard["input_features"],
            input_features_mask=heard["input_features_mask"],
            max_new_tokens=60,
            num_beams=1,
            do_sample=False,
        )
        ends = set(tiny.config.decoder.eos_token_ids)
        expected = [token for token in out[0, len(ids) :].tolist() if token not in ends]
        assert list(tiny.transcribe(waveform, max_new_tokens=60).token_ids) == expected
