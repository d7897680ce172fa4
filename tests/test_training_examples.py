"""The recordings that ship: all of them are there, or the command says which are not."""

from pathlib import Path

import numpy as np
import pytest

from bundled import transcripts
from training.corpus import examples
from training.corpus.corpus import RATE, CorpusClip, write_manifest, write_wav


def corpus(folder: Path, without: str = "") -> Path:
    """A corpus that has every recording which the examples ask for, but one."""
    write_wav(folder / "quiet.wav", np.zeros(RATE // 10, np.float32))
    said = {
        "asterisk_digits": examples.SINGLE,
        "asterisk_strings": tuple(" ".join(["one"] * n) for n in examples.STRING_LENGTHS),
        "prompts_met": examples.PHRASES,
        "prompts_outside": examples.OUTSIDE,
    }
    clips = [
        CorpusClip("quiet.wav", text, "en", "someone", "none", split)
        for split, texts in said.items()
        for text in texts
        if text != without
    ]
    write_manifest(folder, "prompts", clips)
    return folder


def test_the_examples_are_as_many_as_the_project_ships(tmp_path: Path):
    count = examples.write_examples(corpus(tmp_path / "corpus"), tmp_path / "out")
    assert count == len(list((tmp_path / "out").glob("*.flac"))) == len(transcripts())


@pytest.mark.parametrize(
    ("without", "told"),
    [
        ("oh", "the digit 'oh'"),
        ("one one one", "a string of 3 digits"),
        ("november", "'november'"),
        (examples.OUTSIDE[0], examples.OUTSIDE[0]),
    ],
)
def test_a_recording_that_is_missing_is_named_and_nothing_is_written(
    without: str, told: str, tmp_path: Path
):
    with pytest.raises(ValueError, match=f"has no recording of .*{told}"):
        examples.write_examples(corpus(tmp_path / "corpus", without), tmp_path / "out")
    assert not list((tmp_path / "out").glob("*"))
