"""The bundled checkpoint: what it hears, what it says deaf; transformers reads it as it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile
import torch

import core
from bundled import EXAMPLES, inside
from core.text.word_errors import error_rate
from oracle import transformers
from training.corpus.text import CANNOT_HEAR, TRANSCRIBE
from training.corpus.vocabulary import chat_prompt

ROOT = Path(__file__).resolve().parent.parent
TINY = ROOT / "assets" / "tiny"
TEXTS = inside()


@pytest.fixture(scope="module")
def lab() -> core.Lab:
    return core.load("tiny", dtype="float32")


def test_files_are_small_sharded_and_complete() -> None:
    sizes = {file.name: file.stat().st_size for file in TINY.iterdir()}
    assert sum(sizes.values()) <= 40_000_000
    assert max(sizes.values()) < 10_000_000
    assert sum(name.startswith("model-") for name in sizes) >= 2
    index = json.loads((TINY / "model.safetensors.index.json").read_text(encoding="utf-8"))
    assert set(index["weight_map"].values()) == {
        name for name in sizes if name.startswith("model-")
    }


def test_it_transcribes_recordings_of_a_person_with_the_adapter_and_not_without(
    lab: core.Lab,
) -> None:
    on = [(said, lab.transcribe(EXAMPLES / name).text) for name, said in TEXTS.items()]
    off = [(said, lab.transcribe(EXAMPLES / name, lora=False).text) for name, said in TEXTS.items()]
    assert error_rate(on).percent <= 5.0, [pair for pair in on if pair[0] != pair[1]]
    assert error_rate(off).percent >= 90.0, off


def test_without_its_adapter_it_is_a_text_model(lab: core.Lab) -> None:
    assert lab.chat("repeat: four one five") == "four one five"
    assert lab.chat(TRANSCRIBE) == CANNOT_HEAR


def test_silence_is_an_empty_transcript(lab: core.Lab, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", torch.zeros(16_000).numpy(), 16_000)
    assert lab.transcribe(tmp_path / "silence.wav").text == ""


@pytest.mark.oracle
def test_transformers_reads_it_unchanged_and_says_the_same(lab: core.Lab) -> None:
    processor = transformers.AutoProcessor.from_pretrained(TINY)
    peer = transformers.GraniteSpeechForConditionalGeneration.from_pretrained(
        TINY, dtype=torch.float32
    ).eval()
    turn = [{"role": "user", "content": "<|audio|>" + TRANSCRIBE}]
    prompt = processor.tokenizer.apply_chat_template(
        turn, tokenize=False, add_generation_prompt=True
    )
    assert prompt == chat_prompt("<|audio|>" + TRANSCRIBE)
    for name in list(TEXTS)[::3]:
        samples, _ = soundfile.read(EXAMPLES / name, dtype="float32")
        inputs = processor(prompt, torch.from_numpy(samples)[None], return_tensors="pt")
        with torch.inference_mode():
            ids = peer.generate(**inputs, max_new_tokens=40, do_sample=False)
        new = ids[0, inputs["input_ids"].shape[1] :]
        said = processor.tokenizer.decode(new, skip_special_tokens=True)
        assert said == lab.transcribe(EXAMPLES / name).text, name
