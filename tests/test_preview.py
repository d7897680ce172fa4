"""The page of augmented clips: whole in one file, its pictures and sounds true to the mels.

Run alone: ``python -m pytest tests/test_preview.py``.
"""

import base64
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
import torch
from torch import Tensor

from training.__main__ import main
from training.corpus.manifest import ManifestRow
from training.finetune.preview import picture_of, rebuilt, several_speakers, wav_of
from training.stages.mels import power_mel

Noise = Callable[..., Tensor]


@pytest.fixture
def data(tmp_path: Path, noise: Noise) -> Path:
    lines = []
    for index, speaker in enumerate(("ann", "ann", "bob")):
        soundfile.write(tmp_path / f"{index}.wav", noise(0.4, seed=index).numpy(), 16_000)
        row = {"audio": f"{index}.wav", "text": f"<b>{index}</b> & more", "language": "en"}
        lines.append(json.dumps({**row, "speaker": speaker, "licence": "CC0-1.0"}))
    file = tmp_path / "clips.jsonl"
    file.write_text("\n".join(lines))
    return file


def test_the_page_is_whole_and_needs_no_network(data: Path, tmp_path: Path):
    out = tmp_path / "page.html"
    asked = ["preview", "--data", str(data), "--out", str(out), "--clips", "2", "--versions", "3"]
    assert main(asked) == 0
    page = out.read_text()
    assert "light-dark(" in page
    assert not re.search(r"https?://|@import|<script|<link", page)
    sources = re.findall(r'src="data:(image/png|audio/wav);base64,([^"]+)"', page)
    assert len(sources) == page.count("src=") == 2 * (2 + 3) * 2
    for kind, text in sources:
        content = base64.b64decode(text, validate=True)
        if kind == "audio/wav":
            samples, rate = soundfile.read(io.BytesIO(content))
            assert rate == 16_000
            assert 0.3 < len(samples) / rate < 0.5
        else:
            assert content.startswith(b"\x89PNG")
    assert "<b>0" not in page
    assert "&lt;b&gt;0&lt;/b&gt; &amp; more" in page
    assert "ann, en, 0.4 s, row 1" in page
    assert "bob, en, 0.4 s, row 3" in page  # of another speaker before the first one's second
    pictures = [text for kind, text in sources[:10] if kind == "image/png"]
    assert pictures[0] == pictures[1]
    assert len(set(pictures)) == 4  # every version is another one


def test_what_makes_no_page_is_told(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "page.html"
    common = ["preview", "--data", str(data), "--out", str(out)]
    assert main([*common, "--strength", "2"]) == 2
    assert "strength from 0 to 1" in capsys.readouterr().err
    (tmp_path / "0.wav").write_text("no sound")
    assert main(common) == 2
    assert "clips.jsonl, row 1: 0.wav" in capsys.readouterr().err
    assert not out.exists()


def test_pictures_show_low_frequencies_at_the_bottom(tmp_path: Path):
    from_pillow = pytest.importorskip("PIL.Image")
    power = torch.full((10, 80), 1e-8)
    power[3, 0] = 1.0  # the lowest mel at the fourth frame
    grey = from_pillow.open(io.BytesIO(picture_of(power)))
    assert grey.size == (20, 160)
    bright = {(x, y) for x in range(20) for y in range(160) if grey.getpixel((x, y)) == 255}
    assert bright == {(x, y) for x in (6, 7) for y in (158, 159)}


def test_a_rebuilt_sound_has_the_mels_it_was_rebuilt_from():
    time = torch.arange(8000) / 16_000
    tone = 0.3 * torch.sin(6.2832 * 1000 * time)
    samples, rate = soundfile.read(io.BytesIO(wav_of(rebuilt(power_mel(tone)))), dtype="float32")
    assert rate == 16_000
    found, wanted = power_mel(torch.from_numpy(samples)), power_mel(tone)
    assert abs(int(found[20].argmax()) - int(wanted[20].argmax())) <= 1


def test_rows_of_different_speakers_come_first():
    rows = [ManifestRow(Path(f"{i}"), "x", "en", name, "") for i, name in enumerate("aabbc")]
    assert [row.speaker for row in several_speakers(rows, 4)] == ["a", "b", "c", "a"]
    assert len(several_speakers(rows, 9)) == 5
