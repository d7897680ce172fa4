"""What bulk is given becomes a plan: manifests, folders and globs, then shards of equal work.

Run alone: ``python -m pytest tests/test_bulk_plan.py``.
"""

import json
from pathlib import Path

import pytest

from bulk_clips import copy_examples
from core.bulk.identify import identify
from core.bulk.inputs import find_items
from core.bulk.plan import make_plan
from core.errors import UserError
from core.text.manifest import ManifestError

SEVEN, FIVE = "digit_seven.flac", "digit_five.flac"


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("m.jsonl", '{"audio_filepath": 5}', "row 1: audio_filepath is 5; expected a path"),
        ("m.jsonl", '{"audio": "a.wav"}', "row 1: audio_filepath is missing"),
        ("m.jsonl", '{"audio_filepath": ""}', "row 1: audio_filepath is ''"),
        ("m.jsonl", '{"audio_filepath": "a\\u0000"}', "row 1: audio_filepath is"),
        ("m.jsonl", '\n\n["a.wav"]', "row 3: a list; expected a JSON object"),
        ("m.json", "[" * 100_000, "row 1: not JSON"),
        ("m.jsonl", '{"audio_filepath": "a", "duration": "1"}', "duration is '1'; expected sec"),
        ("m.jsonl", '{"audio_filepath": "a", "offset": -1}', "offset is -1; expected seconds"),
        ("m.jsonl", '{"audio_filepath": "a", "offset": NaN}', "offset is nan; expected seconds"),
        ("m.jsonl", '{"audio_filepath": "a", "offset": 1, "duration": 0}', "duration is 0"),
        ("m.jsonl", '{"audio_filepath": "a", "text": ["b"]}', "text is .'b'.; expected text"),
        ("m.jsonl", '{"audio_filepath": "a", "speaker": true}', "speaker is True; expected text"),
        ("m.csv", "audio_filepath,offset\na.wav,soon\n", "row 2: offset is 'soon'"),
        ("m.csv", "audio_filepath\na,b\n", "row 2: more cells than columns"),
        ("m.csv", "path\na.wav\n", "row 2: audio_filepath is missing"),
        ("m.csv", 'audio_filepath\n"a\n', "not csv"),
    ],
)
def test_a_wrong_row_is_named(name: str, text: str, told: str, tmp_path: Path):
    (tmp_path / name).write_text(text)
    with pytest.raises(ManifestError, match=told) as caught:
        find_items([str(tmp_path / name)])
    assert "\n" not in str(caught.value)


def test_only_a_line_feed_ends_a_row(tmp_path: Path):
    text = json.dumps({"audio_filepath": "a", "text": "b\u2028c\x85d"}, ensure_ascii=False)
    (tmp_path / "m.jsonl").write_text(f"\ufeff{text}\n", encoding="utf-8")
    (tmp_path / "m.csv").write_text("audio_filepath,text\na,b\u2028c\x85d\n", encoding="utf-8")
    for name in ("m.jsonl", "m.csv"):
        assert [item.text for item in find_items([str(tmp_path / name)])] == ["b\u2028c\x85d"]


def test_inputs_that_are_not_there_are_told(tmp_path: Path):
    with pytest.raises(UserError, match="no such file or folder; expected a folder"):
        find_items([str(tmp_path / "none")])
    with pytest.raises(UserError, match="no recordings in .*; expected files named .jsonl"):
        find_items([str(tmp_path)])
    copy_examples(tmp_path, SEVEN, FIVE)
    assert len(find_items([str(tmp_path / "*.flac"), str(tmp_path / SEVEN)])) == 3


def test_shards_are_equal_work_of_like_length(tmp_path: Path):
    rows = "".join(f"{number}.wav,{1 + number % 7}\n" for number in range(700))
    (tmp_path / "m.csv").write_text("audio_filepath,duration\n" + rows)
    found = identify(find_items([str(tmp_path / "m.csv")]), ids="stat", shard_s=120.0)
    plan, data = make_plan(found, tmp_path, shard_s=120.0, measured=lambda _: None)
    plan.file.write_bytes(data)
    clips = [plan.clips(number) for number in range(len(plan.shards))]
    assert sum(map(len, clips)) == plan.num_files == 700
    lengths = [clip.seconds for shard in clips for clip in shard]
    assert lengths == sorted(lengths)
    work = [sum(clip.seconds + 0.5 for clip in shard) for shard in clips]
    assert max(work) - min(work) < 16
    assert len({clip.id for shard in clips for clip in shard}) == 700
