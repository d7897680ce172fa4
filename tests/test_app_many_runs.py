"""Every run of a visitor's list in one table, and histories, as the Profile tab shows them.

Run alone: ``python -m pytest tests/test_app_many_runs.py``. Needs no model.
"""

from pathlib import Path

from app.service.profiles.library import ProfileLibrary
from app.service.profiles.reader import ProfileReader
from app.service.quiet_time import QuietTime
from app.wording.many_runs import changes_html, phases_of, points_html, table_html, workload_title
from profiling.runs.store import RunStore
from test_history import days

HOSTILE = "<img src=x onerror=alert(1)>"


def reader_of(folder: Path) -> ProfileReader:
    store = RunStore(folder)
    for run in days(1, slower={"decode": 1.1}):
        store.write(run)
    return ProfileReader(ProfileLibrary(folder, shipped=folder / "none"), QuietTime())


def test_every_run_has_a_row_and_a_workload_measured_twice_a_history(tmp_path: Path) -> None:
    many = reader_of(tmp_path).many("me")
    assert [row["id"] for row in many.rows] == [f"day-{day:02d}" for day in range(20)]
    assert table_html(many.rows).count("<tr>") == 21
    (one,) = many.histories
    assert phases_of(one)[:2] == ["decode", "end_to_end"]
    assert "From day-10 on, decode 1.1" in changes_html(one)
    assert points_html(one).count("commit aaaaaaaaaaaa") == 10
    assert workload_title(one).endswith("clip.wav, float32, a fast one, 2 threads: 20 runs")


def test_without_runs_there_is_nothing_to_tabulate(tmp_path: Path) -> None:
    many = ProfileReader(ProfileLibrary(None, shipped=tmp_path), QuietTime()).many("me")
    assert (many.rows, many.histories) == ([], [])


def test_nothing_from_outside_becomes_html(tmp_path: Path) -> None:
    reader = reader_of(tmp_path)
    many = reader.many("me")
    bad = {**many.rows[0], "clip": HOSTILE, "engine": HOSTILE, "versions": {HOSTILE: HOSTILE}}
    assert "<img" not in table_html([bad])
    points = [{**many.histories[0]["points"][0], "versions": {HOSTILE: HOSTILE}}]
    assert "<img" not in points_html({**many.histories[0], "points": points})
