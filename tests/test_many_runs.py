"""Many runs: one table, one chart, one page; the commit a run was measured at.

Run alone: ``python -m pytest tests/test_many_runs.py``.
"""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from many_runs import made_run
from profiling.__main__ import main
from profiling.figures.many_runs import memory_chart, runs_chart
from profiling.measure.machine import commit_of
from profiling.report.many_runs import runs_report
from profiling.runs.store import RunStore
from profiling.statistics.run_table import run_table

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_a_row_holds_what_was_measured_on_what_and_how_it_compares():
    first, slower = made_run(0), made_run(1, factors={"decode": 2.0})
    one, two = run_table([first, slower])
    assert (one["clip"], one["engine"], one["lora"]) == ("clip.wav", "eager", "on")
    assert (one["format"], one["versions"]["torch"]) == ("float32", "2.14.1")
    assert one["low_ms"] <= one["end_to_end_ms"] <= one["high_ms"]
    assert one["rtf"] == pytest.approx(one["end_to_end_ms"] / 1000 / one["seconds"])
    assert one["verdict"] == "the first"
    assert "slower" in two["verdict"]
    assert two["decoder_ms"] > 1.7 * one["decoder_ms"]


def test_runs_of_different_recordings_are_not_judged_against_each_other():
    other = made_run(1)
    other["workload"]["clip"] = {**other["workload"]["clip"], "sha256": "other"}
    assert run_table([made_run(0), other])[1]["verdict"] == "different work: clip"


def test_a_run_of_another_program_has_a_row_without_a_verdict():
    bare: dict[str, Any] = {"id": "x", "workload": {}, "machine": {}, "end_to_end_ms": 5.0}
    row = run_table([made_run(0), bare])[1]
    assert (row["end_to_end_ms"], row["low_ms"], row["encoder_ms"]) == (5.0, None, None)
    assert row["verdict"] == "not timed by blocks"
    assert len(runs_chart(run_table([bare])).data) == 3


def test_fifty_runs_make_one_page_quickly():
    runs = [made_run(seed, blocks=20) for seed in range(50)]
    begin = time.process_time()
    rows = run_table(runs)
    page = runs_report(rows)
    assert time.process_time() - begin < 4  # of a processor; 2 s where it has one to itself
    assert len(page.encode()) < 20_000_000
    assert page.count("<tr>") == 51
    assert len(memory_chart(rows).data[0].y) == 50


def test_the_command_tells_every_run_and_what_could_not_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    store = RunStore(tmp_path / "runs")
    names = [store.write(made_run(seed)) for seed in range(3)]
    (tmp_path / "runs" / "broken").mkdir()
    page = tmp_path / "page.html"
    status = main(["runs", "--out", str(store.root), "--html", str(page), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert status == 1
    assert [row["id"] for row in told["runs"]] == names
    assert told["not_read"][0].startswith("broken: ")
    assert "broken: " in page.read_text()
    assert main(["runs", names[1], names[0], "--out", str(store.root)]) == 0
    assert capsys.readouterr().out.index(names[1]) > 0
    assert main(["runs", "--out", str(tmp_path / "none")]) == 2


@pytest.mark.parametrize("packed", [False, True])
def test_the_commit_is_read_without_git(tmp_path: Path, packed: bool):
    git = tmp_path / "main" / ".git"
    (git / "refs/heads").mkdir(parents=True)
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    assert commit_of(tmp_path / "main") is None
    if packed:
        (git / "packed-refs").write_text(f"# pack-refs\n{COMMIT} refs/heads/main\n")
    else:
        (git / "refs/heads/main").write_text(f"{COMMIT}\n")
    assert commit_of(tmp_path / "main") == COMMIT
    (git / "worktrees/one").mkdir(parents=True)
    (git / "worktrees/one/HEAD").write_text("ref: refs/heads/main\n")
    (git / "worktrees/one/commondir").write_text("../..\n")
    (tmp_path / "one").mkdir()
    (tmp_path / "one/.git").write_text(f"gitdir: {git}/worktrees/one\n")
    assert commit_of(tmp_path / "one") == COMMIT
    (git / "HEAD").write_text(f"{COMMIT}\n")
    assert commit_of(tmp_path / "main") == COMMIT
    assert commit_of(tmp_path / "nowhere") is None
