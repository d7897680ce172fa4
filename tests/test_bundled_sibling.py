"""The bundled model with a CTC head: what it hears, and that transformers reads it as it is.

Run alone: ``python -m pytest tests/test_bundled_sibling.py``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import core
from bundled import EXAMPLES, inside
from core.__main__ import main
from core.audio.decode import load_audio
from core.checkpoint.catalog import CATALOG
from core.errors import UserError
from oracle import transformers
from training.stages.wer import error_rate

NAME = "tiny-ctc"
FOLDER = Path(CATALOG[NAME].source)
pytestmark = pytest.mark.skipif(
    not (FOLDER / "config.json").is_file(),
    reason="assets/tiny-ctc is not there: make it with `make demo-sibling`",
)


@pytest.fixture(scope="module")
def sibling() -> core.Lab:
    return core.load(NAME, device="cpu", dtype="float32")


def test_the_folder_is_small_and_describes_itself(tmp_path: Path) -> None:
    files = [file for file in FOLDER.iterdir() if file.is_file()]
    assert 4e6 <= sum(file.stat().st_size for file in files) <= 8e6
    for file in files:
        (tmp_path / file.name).symlink_to(file)
    moved = core.load(tmp_path).model_info
    assert (moved.family, moved.licence) == (CATALOG[NAME].family, CATALOG[NAME].licence)
    assert moved.reliable_s == CATALOG[NAME].reliable_s


def test_it_hears_recordings_of_a_person(sibling: core.Lab) -> None:
    files = [EXAMPLES / name for name in inside()]
    found = sibling.transcribe_batch(files)
    pairs = [(said, one.text) for said, one in zip(inside().values(), found, strict=True)]
    assert error_rate(pairs).percent <= 10.0, [pair for pair in pairs if pair[0] != pair[1]]


def test_it_hears_nothing_in_silence_and_hiss(
    sibling: core.Lab, noise: Callable[..., Tensor]
) -> None:
    for waveform in (torch.zeros(32_000), noise(2.0) * 0.005):
        assert sibling.transcribe(waveform).text == ""


def test_a_keyword_that_it_has_no_label_for_is_refused(sibling: core.Lab) -> None:
    sibling.check(decoding="beam", keywords=["november"])
    with pytest.raises(UserError, match="keyword 'weasels' cannot be written with the labels of"):
        sibling.check(decoding="beam", keywords=["november", "weasels"])


def test_the_command_line_knows_it_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transcribe", str(EXAMPLES / "digit_five.flac"), "--model", NAME]) == 0
    assert capsys.readouterr().out == "five\n"
    assert main(["models", "--json"]) == 0
    here = {row["name"]: row["here"] for row in json.loads(capsys.readouterr().out)}
    assert here[NAME]


@pytest.mark.oracle
def test_transformers_reads_it_unchanged_and_says_the_same(sibling: core.Lab) -> None:
    reference = transformers.GraniteSpeech5ForCTC.from_pretrained(FOLDER, dtype=torch.float32)
    processor = transformers.AutoProcessor.from_pretrained(FOLDER)
    for name in list(inside())[-3:]:
        waveform = load_audio(EXAMPLES / name)
        inputs = processor(waveform.numpy(), sampling_rate=16_000, return_tensors="pt")
        with torch.inference_mode():
            labels = reference.eval()(**inputs).logits.argmax(-1)
        assert processor.batch_decode(labels)[0].strip() == sibling.transcribe(waveform).text
