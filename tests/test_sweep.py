"""A sweep on a random checkpoint: what cannot run is told, the rest is measured once.

Run alone: ``python -m pytest tests/test_sweep.py``.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from core import Lab
from core.errors import UserError
from many_runs import made_run
from measuring import RECORDING, workload
from profiling.__main__ import main
from profiling.figures.many_runs import arm_of, heat_table, short_names, time_over_length
from profiling.measure.timing import time_once
from profiling.measure.workload import WorkloadChoices
from profiling.runs.run_json import cache_bytes_of_run, timed_part
from profiling.runs.store import RunStore
from profiling.runs.sweep import Grid, plan_sweep
from profiling.statistics.run_table import run_row, run_table, sweep_table, workload_key
from tiny_models import noise


@pytest.mark.slow
def test_a_sweep_measures_every_combination_once(
    speech_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    clip, out, page = tmp_path / "noise.wav", tmp_path / "runs", tmp_path / "sweep.html"
    clip.write_bytes(RECORDING)
    quick = ("--max-new-tokens", "4", "--force-tokens", "--threads", "1", "--repeats", "1")
    common = ("--clip", str(clip), "--model", str(speech_folder), "--out", str(out), *quick)
    grid = ("--lora", "on,off", "--format", "float32,bfloat16", "--no-trace", "--json")
    assert main(["sweep", *common, *grid, "--seconds", "0.5"]) == 0
    first = json.loads(capsys.readouterr().out)["runs"]
    assert len({(row["lora"], row["format"]) for row in first}) == len(first) == 4
    assert {row["seconds"] for row in first} == {0.5}
    assert len({RunStore(out).read(row["id"])["session"] for row in first}) == 1

    more = ("--seconds", "0.5", "1", "--batch", "1", "2", "--html", str(page))
    assert main(["sweep", *common, *grid, *more]) == 0
    told = capsys.readouterr()
    assert "12 runs to measure, 4 measured already" in told.err
    again = json.loads(told.out)["runs"]
    assert len(again) == len(RunStore(out).names()) == 16
    assert {row["batch"] for row in again} == {1, 2}
    assert {row["id"] for row in first} < {row["id"] for row in again}
    assert "Time over length" in page.read_text()


def test_combinations_that_cannot_run_are_told_before_and_the_others_go_on(
    speech_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    check = Lab.check

    def refusing(lab: Lab, **options: Any) -> Any:
        if options["decoding"] == "beam":
            raise UserError("no beams here")
        return check(lab, **options)

    monkeypatch.setattr(Lab, "check", refusing)
    grid = Grid(
        choices=WorkloadChoices(model=str(speech_folder)),
        engines=["eager"],
        adapters=[None, True],  # on where there is one: the same as True
        decodings=["greedy", "beam"],
        formats=["float32"],
        lengths_s=[0.5, 1.0],
        device="cpu",
    )
    plan = plan_sweep(grid, Path("noise.wav"), noise(0.3), RunStore(tmp_path))
    assert [[work.clip.seconds for work in works] for _, works in plan.sessions] == [[0.5], [1.0]]
    assert {work.decoding for _, works in plan.sessions for work in works} == {"greedy"}
    assert "0.5 s, eager, LoRA on, beam: no beams here" in plan.not_possible
    assert RunStore(tmp_path).names() == []


def test_a_batch_counts_all_its_recordings_and_is_work_of_its_own(lab: Lab, tmp_path: Path):
    one, two = workload(lab, max_new_tokens=4), workload(lab, max_new_tokens=4, batch=2)
    assert one.same_work(two) == ["batch"]
    sample = time_once(lab, two, RECORDING)
    assert sample.num_prefills == 1
    assert len(sample.step_ms) == 3  # of both recordings at once
    alone = time_once(lab, one, RECORDING)
    assert sample.transcript.token_ids == alone.transcript.token_ids
    timed = timed_part(two, [(sample, sample)])
    spent_s = sample.end_to_end_ms / 1000
    assert timed["metrics"]["rtf"] == pytest.approx(spent_s / (2 * two.clip.seconds))
    assert cache_bytes_of_run(lab, two) == 2 * cache_bytes_of_run(lab, one)
    row = run_row({"workload": two.to_json(), "end_to_end_ms": sample.end_to_end_ms})
    assert row["rtf"] == pytest.approx(timed["metrics"]["rtf"])
    before = {key: value for key, value in one.to_json().items() if key != "batch"}
    assert workload_key(before) == workload_key(one.to_json()) != workload_key(two.to_json())
    with pytest.raises(ValueError, match="batch is 0"):
        workload(lab, batch=0)


def test_rows_of_a_sweep_are_judged_by_the_first_of_equal_work():
    runs = [made_run(seed) for seed in range(6)]
    for number, run in enumerate(runs):
        run["workload"] = {**run["workload"], "batch": 1 + number % 2}
    rows = sweep_table(runs)
    assert [row["batch"] for row in rows] == [1, 1, 1, 2, 2, 2]
    assert [row["verdict"] for row in rows].count("the first") == 2
    assert not any("different work" in row["verdict"] for row in rows)


def test_a_sweep_of_nothing_says_why(
    speech_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    clip = tmp_path / "noise.wav"
    clip.write_bytes(RECORDING)
    command = ["sweep", "--clip", str(clip), "--model", str(speech_folder)]
    command += ["--out", str(tmp_path / "runs")]
    assert main([*command, "--device", "cuda:99"]) == 2
    told = capsys.readouterr().err
    assert "not possible: " in told
    assert "0 runs to measure, 0 measured already" in told
    assert "error: nothing was measured: " in told
    assert main([*command, "--seconds", "0"]) == 2
    assert "--seconds holds 0; expected more than 0" in capsys.readouterr().err
    assert main([*command, "--format", "float8"]) == 2
    assert main([*command, "--batch", "0"]) == 2
    assert "--batch holds 0; expected 1 or more" in capsys.readouterr().err


def test_figures_of_a_sweep_have_a_line_a_way_and_a_cell_a_combination():
    runs = [made_run(seed) for seed in range(4)]
    for seconds, engine, run in zip((1.0, 3.0, 1.0, 3.0), "eecc", runs, strict=True):
        run["workload"]["engine"] = {"e": "eager", "c": "compile"}[engine]
        run["workload"]["clip"] = {**run["workload"]["clip"], "seconds": seconds}
    rows = run_table(runs[:3])
    assert short_names(rows) == ["eager", "eager", "compile"]  # the rest they share
    assert short_names(rows[:1]) == [arm_of(rows[0])]
    lines = time_over_length(rows).data
    assert [list(line.x) for line in lines] == [[1.0, 3.0], [1.0]]
    heat = heat_table(rows).data[0]
    assert list(heat.x) == ["1 s", "3 s"]
    assert [len(line) for line in heat.z] == [2, 2]
    assert heat.z[1][1] is None
