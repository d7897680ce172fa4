"""Manifests: what is wrong with one is told on one line, with the file and the row.

Run alone: ``python -m pytest tests/test_manifest.py``.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import core
from core.text.manifest import ManifestError
from training.__main__ import main
from training.corpus.manifest import ManifestRow, read_manifest, write_manifest
from training.finetune.manifest_check import check_rows, check_text, inspect

RATE = 16_000


def tone(file: Path, seconds: float = 0.5, value: float | None = None) -> Path:
    samples = 0.3 * np.sin(np.arange(round(seconds * RATE)) / 5.0)
    if value is not None:
        samples[100] = value
    soundfile.write(file, samples.astype(np.float32), RATE, subtype="FLOAT")
    return file


def row(**changes: Any) -> dict[str, Any]:
    plain = {"audio": "a.wav", "text": "one two", "language": "en", "speaker": "me"}
    return {**plain, "licence": "CC0-1.0", **changes}


def manifest(folder: Path, *rows: dict[str, Any] | str) -> Path:
    file = folder / "train.jsonl"
    lines = [one if isinstance(one, str) else json.dumps(one) for one in rows]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def test_what_is_written_is_read_again(tmp_path: Path):
    tone(tmp_path / "a.wav")
    rows = [
        ManifestRow(tmp_path / "a.wav", "one", "en", "me", "CC0-1.0"),
        ManifestRow(
            tmp_path / "sub" / "b.wav", "zwölf Ärzte", "de", "du", "CC0-1.0", 0.5, 1.25, "dev"
        ),
    ]
    file = tmp_path / "made" / "train.jsonl"
    assert write_manifest(file, rows) == 2
    assert json.loads(file.read_text().splitlines()[0])["audio"] == "../a.wav"
    found = read_manifest(file)
    assert [r.audio.resolve() for r in found] == [r.audio.resolve() for r in rows]
    assert [(r.text, r.start, r.end, r.split, r.number) for r in found] == [
        ("one", None, None, None, 1),
        ("zwölf Ärzte", 0.5, 1.25, "dev", 2),
    ]


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ({k: v for k, v in row().items() if k != "text"}, "column 'text' is missing; expected"),
        (row(transcript="x"), "column 'transcript' is unknown; expected audio, text"),
        (row(text="  "), "the text is empty"),
        (row(text=None), "text is None; expected text"),
        (row(text=["one"]), r"text is \['one'\]; expected text"),
        (row(start=2.0, end=1.0), "end is 1 s and start 2 s"),
        (row(start="soon"), "start is 'soon'; expected seconds"),
        ("[1, 2]", "a list; expected a JSON object"),
        ("{audio: a.wav}", "not JSON"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else None,
)
def test_a_wrong_row_is_named(bad: dict[str, Any] | str, told: str, tmp_path: Path):
    file = manifest(tmp_path, row(), bad)
    with pytest.raises(ManifestError, match=rf"train\.jsonl, row 2: .*{told}") as caught:
        read_manifest(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("lead", ["", "\ufeff"], ids=["plain", "byte-order-mark"])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0c", "\x1c"], ids=ascii)
def test_only_a_line_feed_ends_a_row(mark: str, end: str, lead: str, tmp_path: Path):
    text = json.dumps(row(text=f"one{mark}two"), ensure_ascii=False)
    file = tmp_path / "train.jsonl"
    file.write_bytes((lead + text + end + text + end).encode())
    assert [(r.number, r.text) for r in read_manifest(file)] == [(1, "one two"), (2, "one two")]


def test_a_file_that_is_no_manifest_is_told(tmp_path: Path):
    with pytest.raises(ManifestError, match="none.jsonl cannot be read"):
        read_manifest(tmp_path / "none.jsonl")
    with pytest.raises(ManifestError, match="has no rows"):
        read_manifest(manifest(tmp_path, ""))
    (tmp_path / "sound.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ManifestError, match="not text in UTF-8"):
        read_manifest(tmp_path / "sound.jsonl")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("missing.wav", "missing.wav"),
        ("text.wav", "not a recording that can be read"),
        ("long.wav", "2.0 s long; expected at most 1 s"),
        ("nan.wav", "1 NaN or infinite sample"),
        ("inf.wav", "1 NaN or infinite sample"),
        ("empty.wav", "sound"),
    ],
)
def test_a_recording_that_cannot_be_used_names_its_row(
    name: str, told: str, tmp_path: Path, lab: core.Lab
):
    tone(tmp_path / "a.wav")
    tone(tmp_path / "long.wav", 2.0)
    tone(tmp_path / "nan.wav", value=float("nan"))
    tone(tmp_path / "inf.wav", value=float("inf"))
    tone(tmp_path / "empty.wav", 0.0)
    (tmp_path / "text.wav").write_text("this is no sound")
    rows = read_manifest(manifest(tmp_path, row(), row(audio=name)))
    with pytest.raises(ManifestError, match=rf"row 2: .*{told}") as caught:
        check_rows(rows, lab, check_ctc=False, max_seconds=1.0)
    assert "\n" not in str(caught.value)


def test_start_and_end_cut_the_recording(tmp_path: Path, lab: core.Lab):
    tone(tmp_path / "a.wav", 3.0)
    rows = read_manifest(manifest(tmp_path, row(start=0.5, end=1.25), row(start=2.5)))
    assert check_rows(rows, lab, check_ctc=False, max_seconds=1.0) == [0.75, 0.5]
    late = read_manifest(manifest(tmp_path, row(start=3.5)))
    with pytest.raises(ManifestError, match=r"0\.00 s of sound between start and end, of 3\.00"):
        check_rows(late, lab, check_ctc=False, max_seconds=1.0)
    wide = read_manifest(manifest(tmp_path, row(start=0.5, end=2.5)))
    with pytest.raises(ManifestError, match=r"2\.0 s between start and end; expected at most 1 s"):
        check_rows(wide, lab, check_ctc=False, max_seconds=1.0)


def test_characters_the_model_cannot_write_name_the_row(tmp_path: Path, lab: core.Lab):
    def text(said: str) -> ManifestRow:
        return read_manifest(manifest(tmp_path, row(text=said)))[0]

    check_text(text("one, two"), lab, check_ctc=False)
    with pytest.raises(ManifestError, match=r"row 1: the text contains '<\|audio\|>'"):
        check_text(text("one <|audio|>"), lab, check_ctc=False)
    check_text(text("naïve"), lab, check_ctc=False)  # byte-level: any text
    with pytest.raises(ManifestError, match="row 1: the character 'n' is outside the alphabet"):
        check_text(text("nn"), lab, check_ctc=True)  # this model's CTC head has 42 labels


def test_checking_lists_every_problem_and_the_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    tone(tmp_path / "a.wav", 1.0)
    tone(tmp_path / "b.wav", 0.5)
    soundfile.write(tmp_path / "quiet.wav", np.zeros(RATE), RATE)
    file = manifest(
        tmp_path,
        row(),
        row(audio="none.wav"),
        row(audio="b.wav", speaker="you", text="three"),
        row(text=""),
        row(audio="quiet.wav"),
        row(text="another"),
    )
    report = inspect(file)
    assert (report.rows, round(report.seconds, 3), report.longest) == (4, 3.5, 1.0)
    assert report.speakers == {"me": 3, "you": 1}
    assert [p.split(": ")[0] for p in report.problems] == [f"{file}, row 2", f"{file}, row 4"]
    assert "row 5: the recording is silent" in report.notes[1]
    assert "row 6: the recording of row 1 with another text" in report.notes[0]
    assert main(["manifest", "check", str(file)]) == 1
    shown = capsys.readouterr().out
    assert "4 usable rows" in shown
    assert "2 problems" in shown
    assert main(["manifest", "check", str(manifest(tmp_path, row()))]) == 0
    assert main(["manifest", "check", str(tmp_path / "none.jsonl")]) == 2
    assert capsys.readouterr().err.startswith("error: ")
