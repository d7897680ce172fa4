"""Very many recordings: each one a row, once, whatever breaks, stops or kills the run.

Run alone: ``python -m pytest tests/test_bulk.py``.
"""

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import soundfile

import core
import core.bulk.folder
import core.bulk.shard_rows
import core.bulk.worker
from bulk_clips import copy_examples, rows_in, without_times, write_clips
from bundled import EXAMPLES, inside
from core.__main__ import main
from core.bulk.identify import identify
from core.bulk.inputs import find_items
from core.bulk.job import BatchDone, ShardBegun
from core.bulk.plan import make_plan
from core.bulk.progress import RunProgress
from core.bulk.report import kind_of
from core.cli import ALL_WELL, NOTHING_DONE, SOME_FAILED, STOPPED
from core.lab import Lab

ROOT = Path(__file__).parents[1]
SEVEN, FIVE = "digit_seven.flac", "digit_five.flac"


@pytest.fixture(scope="module")
def tiny() -> Lab:
    return core.load("tiny")


@pytest.fixture(autouse=True)
def one_lab(monkeypatch: pytest.MonkeyPatch, tiny: Lab) -> None:
    monkeypatch.setattr("core.cli_bulk.load", lambda *_args, **_more: tiny)


def bulk(*arguments: object) -> int:
    return main(["bulk", *map(str, arguments)])


def started(*arguments: object) -> subprocess.Popen[str]:
    """Bulk in a process of its own, which can be killed."""
    command = [sys.executable, "-m", "core", "bulk", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True, bufsize=1
    )


def parts(folder: Path) -> dict[str, str]:
    """Digests of the finished shards."""
    return {
        part.name: hashlib.sha256(part.read_bytes()).hexdigest() for part in folder.glob("part-*")
    }


def kill_after(run: subprocess.Popen[str], folder: Path, num_shards: int) -> dict[str, str]:
    """Kill a run once that many shards are finished; returns the digests of those that are."""
    while len(parts(folder)) < num_shards and run.poll() is None:
        time.sleep(0.05)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    time.sleep(0.5)  # its processes end by themselves
    return parts(folder)


def test_a_folder_becomes_rows_and_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    copy_examples(tmp_path / "in" / "sub", SEVEN, FIVE)
    (tmp_path / "in" / "broken.wav").write_bytes(b"no sound")
    (tmp_path / "in" / "notes.txt").write_text("no recording")
    out = tmp_path / "out"
    assert bulk(tmp_path / "in", "--output-dir", out) == SOME_FAILED
    broken, five, seven = rows_in(out)
    assert list(seven) == [
        *("audio_filepath", "duration", "time", "text", "pred_text", "words", "segments"),
        *("warnings", "error"),
    ]
    assert (five["pred_text"], seven["pred_text"], broken["pred_text"]) == ("five", "seven", None)
    assert broken["error"].startswith("broken.wav: not a recording that can be read")
    assert "1 error\n" in capsys.readouterr().err
    report = json.loads((out / "report.json").read_text())
    assert (report["files"], report["failed"], report["wer"]) == (3, 1, None)
    assert report["kinds"] == {"not a recording that can be read": 1}
    again = json.loads((out / "failures.jsonl").read_text())
    assert again["audio_filepath"] == str(tmp_path / "in" / "broken.wav")
    before = parts(out)
    assert bulk(tmp_path / "in", "--output-dir", out) == SOME_FAILED
    assert parts(out) == before


def test_parts_copies_and_known_texts(tmp_path: Path):
    name = next(name for name in inside() if name.startswith("string_three_one_eight"))
    copy_examples(tmp_path, SEVEN, name)
    (tmp_path / "copy.flac").write_bytes((tmp_path / SEVEN).read_bytes())
    wave, rate = soundfile.read(EXAMPLES / SEVEN, dtype="float32")
    both = [0.0] * rate + list(wave) + [0.0] * rate
    soundfile.write(tmp_path / "late.wav", both, rate, subtype="FLOAT")
    rows = [
        {"audio_filepath": SEVEN, "text": "Seven.", "speaker": 3, "more": "passed over"},
        {"audio_filepath": "copy.flac", "text": "nine"},
        {"audio_filepath": f"./{SEVEN}"},
        {"audio_filepath": "late.wav", "offset": 0.9, "duration": 1.1},
        {"audio_filepath": "late.wav", "offset": 60},
    ]
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out"
    assert bulk(manifest, "--output-dir", out, "--ids", "content") == SOME_FAILED
    copy, seven, beyond, late = rows_in(out)  # of two parts the shorter stands first
    assert [row["pred_text"] for row in (copy, seven, late, beyond)] == ["seven"] * 3 + [None]
    assert (seven["speaker"], copy["copy_of"], copy["time"]) == ("3", SEVEN, 0.0)
    assert beyond["error"].startswith("late.wav: it ends before offset 60 s")
    assert (late["offset"], late["duration"]) == (0.9, 1.1)
    report = json.loads((out / "report.json").read_text())
    assert (report["word_errors"], report["words"], report["copies"]) == (1, 2, 1)


def test_long_recordings_and_long_parts_of_them(tmp_path: Path):
    name = next(name for name in inside() if name.startswith("string_three_one_eight"))
    wave, rate = soundfile.read(EXAMPLES / name, dtype="float32")
    long = ([*wave] + [0.0] * rate) * 4
    soundfile.write(tmp_path / "long.wav", long, rate, subtype="FLOAT")
    manifest = tmp_path / "m.csv"
    manifest.write_text("audio_filepath,offset\nlong.wav,\nlong.wav,0.5\n")
    out = tmp_path / "out"
    assert bulk(manifest, "--output-dir", out) == ALL_WELL
    whole, part = sorted(rows_in(out), key=lambda row: row.get("offset", 0.0))
    assert whole["pred_text"] == " ".join(["three one eight"] * 4)
    assert part["pred_text"].endswith(" ".join(["three one eight"] * 3))
    assert not (out / "unfinished").exists()


def test_the_folder_of_another_run_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    source, out = tmp_path / "in", tmp_path / "out"
    copy_examples(source, SEVEN)
    assert bulk(source, "--output-dir", out) == ALL_WELL
    before = parts(out)
    monkeypatch.setattr("core.cli_bulk.load", lambda *_: pytest.fail("loaded"))
    for more, told in (
        (["--decoding", "beam"], "options.decoding is 'greedy' there and 'beam' here"),
        (["--dtype", "bfloat16"], "model.dtype is 'torch.float32' there"),
        (["--ids", "content"], "was planned for other recordings"),
        (["--format", "parquet"], "parquet needs" if not find_spec("pyarrow") else "format is"),
    ):
        assert bulk(source, "--output-dir", out, *more) == NOTHING_DONE
        assert told in capsys.readouterr().err
    copy_examples(source, FIVE)
    assert bulk(source, "--output-dir", out) == NOTHING_DONE
    assert "(1 then, 2 now)" in capsys.readouterr().err
    assert bulk(source, "--output-dir", out, "--keep-plan") == ALL_WELL
    assert parts(out) == before


def test_output_that_cannot_be_used_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    copy_examples(tmp_path / "in", SEVEN)
    (tmp_path / "file").write_text("")
    assert bulk(tmp_path / "in", "--output-dir", tmp_path / "file") == NOTHING_DONE
    assert "expected a folder that can be written to" in capsys.readouterr().err
    for arguments, told in (
        (["--num-workers", "2"], "expected --executor processes or ray"),
        (["--shard-minutes", "0"], "--shard-minutes is 0; expected more than 0"),
        (["--batch-size", "0"], "expected at least 1"),
    ):
        assert bulk(tmp_path / "in", "--output-dir", tmp_path / "out", *arguments) == NOTHING_DONE
        assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    copy_examples(tmp_path / "in", SEVEN, FIVE)
    assert bulk(tmp_path / "in", "--output-dir", tmp_path / "out", "--dry-run") == ALL_WELL
    assert capsys.readouterr().out.startswith("2 recordings, 0.00 h by their headers")
    assert not (tmp_path / "out").exists()


def test_a_full_disk_loses_nothing_that_was_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    copy_examples(tmp_path / "in", SEVEN, FIVE)
    arguments = (tmp_path / "in", "--output-dir", tmp_path / "out", "--shard-minutes", "0.02")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    kept = core.bulk.worker.write_rows

    def fill(file: Path, rows: list[Any]) -> None:
        if parts(tmp_path / "out"):
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        kept(file, rows)

    try:
        with monkeypatch.context() as patch:
            patch.setattr("core.bulk.worker.write_rows", fill)
            assert bulk(*arguments) == NOTHING_DONE
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert "could not be written" in capsys.readouterr().err
    before = parts(tmp_path / "out")
    assert len(before) == 1
    assert bulk(*arguments) == ALL_WELL
    assert before.items() <= parts(tmp_path / "out").items()
    assert len(rows_in(tmp_path / "out")) == 2


def test_ctrl_c_ends_after_the_running_shard(
    tmp_path: Path, tiny: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    copy_examples(tmp_path / "in", SEVEN, FIVE)
    arguments = (tmp_path / "in", "--output-dir", tmp_path / "out", "--shard-minutes", "0.02")
    real = tiny.stream_batch

    def interrupted(*sources: Any, **options: Any) -> Iterator[Any]:
        os.kill(os.getpid(), signal.SIGINT)
        yield from real(*sources, **options)

    with monkeypatch.context() as patch:
        patch.setattr(tiny, "stream_batch", interrupted)
        assert bulk(*arguments) == STOPPED
    said = capsys.readouterr().err
    assert "stopping: the running shards are finished first" in said
    assert "1 of 2 shards are done; the same command goes on" in said
    assert bulk(*arguments) == ALL_WELL
    assert len(rows_in(tmp_path / "out")) == 2


def test_a_fault_of_ours_is_a_row_and_twenty_end_the_run(
    tmp_path: Path, tiny: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def broken(*_: Any, **__: Any) -> Iterator[Any]:
        raise RuntimeError("a cable fell out")
        yield

    monkeypatch.setattr(tiny, "stream_batch", broken)
    copy_examples(tmp_path / "few", SEVEN)
    assert bulk(tmp_path / "few", "--output-dir", tmp_path / "out") == NOTHING_DONE
    (row,) = rows_in(tmp_path / "out")
    assert row["error"] == "an error of this program's own (RuntimeError); the log says more"
    write_clips(tmp_path / "many", 20, longest_s=1.0)
    arguments = (tmp_path / "many" / "clips.jsonl", "--output-dir", tmp_path / "none")
    assert bulk(*arguments) == NOTHING_DONE
    assert "20 recordings in a row failed" in capsys.readouterr().err
    assert not parts(tmp_path / "none")


def test_the_time_of_the_end_follows_from_what_is_left(tmp_path: Path):
    (tmp_path / "m.csv").write_text(
        "audio_filepath,duration\n" + "".join(f"{n}.wav,9.5\n" for n in range(100))
    )
    found = identify(find_items([str(tmp_path / "m.csv")]), ids="stat", shard_s=500.0)
    plan, _ = make_plan(found, tmp_path, shard_s=500.0, measured=lambda _: None)
    now = 0.0
    progress = RunProgress(plan, set(), clock=lambda: now)
    progress.add(ShardBegun(1))
    now = 60.0
    progress.add(BatchDone(1, num_files=25, seconds=237.5, num_failed=2))
    line = progress.line()
    assert line.startswith("25 of 100 recordings, 75 left, 0.07 of 0.26 h, 2 failed, 4.0x real")
    assert line.endswith("(in 3 min)")


def test_errors_of_one_kind_are_counted_together():
    a, b = (f"{name}: over {len(name)} s long; expected at most 9 s" for name in ("a", "bc"))
    assert kind_of(a) == kind_of(b) == "over N s long"


def test_a_run_that_is_killed_goes_on(tmp_path: Path, tiny: Lab):
    manifest = write_clips(tmp_path / "in", 40, num_broken=2, longest_s=1.0)
    out, whole = tmp_path / "out", tmp_path / "whole"
    arguments = (manifest, "--shard-minutes", "0.15")
    run = started(*arguments, "--output-dir", out, "--executor", "processes")
    finished = kill_after(run, out, 2)
    assert 2 <= len(finished) < 6
    assert bulk(*arguments, "--output-dir", out) == SOME_FAILED
    assert finished.items() <= parts(out).items()
    assert bulk(*arguments, "--output-dir", whole) == SOME_FAILED
    rows = rows_in(out)
    assert len({row["audio_filepath"] for row in rows}) == len(rows) == 40
    assert sum(row["error"] is not None for row in rows) == 2
    assert without_times(rows) == without_times(rows_in(whole))


def test_two_runs_do_not_share_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    copy_examples(tmp_path / "in", SEVEN)
    with core.bulk.folder.OutputFolder(tmp_path / "out"):
        assert bulk(tmp_path / "in", "--output-dir", tmp_path / "out") == NOTHING_DONE
    assert "another run is at work in" in capsys.readouterr().err


@pytest.mark.long
def test_two_thousand_recordings_killed_three_times(tmp_path: Path):
    manifest = write_clips(tmp_path / "in", 2000, num_broken=20)
    out = tmp_path / "out"
    arguments = (manifest, "--output-dir", out, "--executor", "processes")
    finished: dict[str, str] = {}
    for num_shards in (3, 10, 20):
        now = kill_after(started(*arguments), out, num_shards)
        assert finished.items() <= now.items()
        finished = now
    run = started(*arguments)
    run.communicate()
    assert run.returncode == SOME_FAILED
    assert finished.items() <= parts(out).items()
    rows = rows_in(out)
    assert len({row["audio_filepath"] for row in rows}) == len(rows) == 2000
    assert sum(row["error"] is not None for row in rows) == 20
    assert sum(bool(row["pred_text"]) for row in rows) >= 1975  # a soft digit may be no speech


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="requirements-cluster.txt is not installed")
def test_ray_writes_the_same_rows(tmp_path: Path):
    manifest = write_clips(tmp_path / "in", 40, num_broken=2, longest_s=1.0)
    arguments = (manifest, "--shard-minutes", "0.15")
    run = started(*arguments, "--output-dir", tmp_path / "ray", "--executor", "ray")
    said = run.communicate()[1]
    assert run.returncode == SOME_FAILED, said
    assert bulk(*arguments, "--output-dir", tmp_path / "local") == SOME_FAILED
    assert without_times(rows_in(tmp_path / "ray")) == without_times(rows_in(tmp_path / "local"))


@pytest.mark.skipif(find_spec("pyarrow") is None, reason="pyarrow is not installed")
def test_parquet_holds_the_same_rows(tmp_path: Path):
    copy_examples(tmp_path / "in", SEVEN, FIVE)
    (tmp_path / "in" / "broken.wav").write_bytes(b"no sound")
    for form in ("jsonl", "parquet"):
        folder = tmp_path / form
        assert bulk(tmp_path / "in", "--output-dir", folder, "--format", form) == SOME_FAILED
    (part,) = (tmp_path / "parquet").glob("part-*.parquet")
    found = {row["audio_filepath"]: row for row in core.bulk.shard_rows.read_rows(part)}
    for row in rows_in(tmp_path / "jsonl"):
        same = found[row["audio_filepath"]]
        assert all(same[key] == row[key] for key in ("pred_text", "error", "duration"))
        assert [word["text"] for word in same["words"]] == [w["text"] for w in row["words"]]
