"""Histories of simulated days whose truth is known: planted changes are named, drift is not.

Run alone: ``python -m pytest tests/test_history.py``.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from many_runs import PHASE_MS, made_run
from profiling.__main__ import main
from profiling.figures.history import changed_phases, history_line
from profiling.report.many_runs import history_report
from profiling.report.sentences import changes_said
from profiling.runs.store import RunStore
from profiling.statistics.history import histories, history

OLD, NEW = "a" * 40, "b" * 40


def days(
    seed: int,
    num_days: int = 20,
    *,
    slower: dict[str, float] | None = None,
    at: int = 10,
    spread: float = 0.01,
) -> list[dict[str, Any]]:
    """Runs of successive days: each like the day before, 2 % apart, now and then 15 % slower.

    Every phase follows the machine in its own measure, 0.7 to 1.2 of it; ``spread`` is its own.
    From day ``at`` on the commit is another, and the phases in ``slower`` take longer.
    """
    random = np.random.default_rng(seed)
    drift = resembling(random.normal(0, 0.02, (num_days, 1)))
    drift = drift + 0.15 * (random.random((num_days, 1)) < 0.05)
    names = (*PHASE_MS, "other")
    own = resembling(spread / np.sqrt(5 / 3) * random.standard_t(5, (num_days, len(names))))
    factors = np.exp(drift * random.uniform(0.7, 1.2, len(names)) + own)
    runs = []
    for day, row in enumerate(factors):
        new = day >= at
        late = slower if new and slower else {}
        run = made_run(
            1000 * seed + day,
            factors={name: row[k] * late.get(name, 1.0) for k, name in enumerate(names)},
            commit=NEW if new else OLD,
        )
        created = f"2026-10-{1 + day:02d}T10:00:00+00:00"
        runs.append({**run, "id": f"day-{day:02d}", "created": created})
    return runs


def resembling(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Let days, the rows, resemble the day before."""
    for day in range(1, len(values)):
        values[day] += 0.3 * values[day - 1]
    return values


def test_a_tenth_slower_phase_between_two_commits_is_named():
    found = history(days(1, slower={"decode": 1.1}))
    (change,) = found.changes
    assert change.between == ("day-09", "day-10")
    assert change.new_versions == ("commit aaaaaaaaaaaa -> bbbbbbbbbbbb",)
    decode = next(step for step in change.steps if step.phase == "decode")
    assert decode.low < 1.1 < decode.high
    assert "slower" in decode.verdict
    assert {step.phase for step in change.steps} <= {"decode", "end_to_end"}


def test_a_tenth_slower_machine_code_everywhere_is_named_in_the_whole():
    slower = dict.fromkeys((*PHASE_MS, "other"), 1.1)
    (change,) = history(days(2, slower=slower)).changes
    assert change.steps[0].phase == "end_to_end"
    assert abs(change.at - 10) <= 1


def test_planted_changes_are_found_and_where_they_are():
    found = [history(days(seed, slower={"decode": 1.1})).changes for seed in range(10, 30)]
    named = [[s.phase for change in changes for s in change.steps] for changes in found]
    assert sum("decode" in phases for phases in named) >= 19
    assert {phase for phases in named for phase in phases} <= {"decode", "end_to_end"}
    assert sum([change.at for change in changes] == [10] for changes in found) >= 19


def test_equal_days_name_no_change():
    assert [history(days(seed)).changes for seed in range(30, 50)] == [()] * 20


@pytest.mark.slow
def test_of_many_histories_those_with_a_change_name_it_and_hardly_any_other():
    planted = [history(days(seed, slower={"decode": 1.1})).changes for seed in range(100, 300)]
    named = [{s.phase for change in changes for s in change.steps} for changes in planted]
    assert sum("decode" in phases for phases in named) >= 198
    assert sum(phases <= {"decode", "end_to_end"} for phases in named) >= 198
    assert sum(bool(history(days(seed)).changes) for seed in range(100, 300)) <= 2


@pytest.mark.parametrize("kept", [(), ("other",), ("other", "features", "prefill")])
def test_a_change_of_most_phases_is_not_read_as_the_opposite_change_of_the_rest(kept: tuple[str]):
    slower = dict.fromkeys((name for name in (*PHASE_MS, "other") if name not in kept), 1.3)
    steps = [s for change in history(days(6, slower=slower)).changes for s in change.steps]
    assert "end_to_end" in {step.phase for step in steps}
    assert not {step.phase for step in steps} & set(kept)
    assert all(step.ratio > 1 for step in steps)


def test_a_machine_that_became_slower_for_good_is_named_in_no_phase():
    runs = days(7)
    for run in runs[12:]:
        run["samples"] = {n: [1.3 * ms for ms in each] for n, each in run["samples"].items()}
    (change,) = history(runs).changes
    assert [step.phase for step in change.steps] == ["end_to_end"]
    assert (
        "(same versions, no phase more than the others)" in changes_said(history(runs).to_json())[0]
    )


def test_two_changes_are_both_found():
    runs = days(3, 28, slower={"encoder": 1.5})
    for run in runs[20:]:
        run["samples"]["encoder"] = [ms / 1.5 for ms in run["samples"]["encoder"]]
    steps = [
        (change.at, step.ratio > 1)
        for change in history(runs).changes
        for step in change.steps
        if step.phase == "encoder"
    ]
    assert steps == [(10, True), (20, False)]


def test_few_days_say_so_and_busy_ones_do_not_count():
    runs = days(4, 8, slower={"decode": 1.6}, at=4)
    for run in runs[4:]:
        run["machine"]["others_cpu_share"] = 0.4
    found = history(runs)
    assert found.changes == ()
    assert found.note == "4 runs on a quiet machine; at least 6 are needed to tell a change"
    assert [point.busy for point in found.points] == [False] * 4 + [True] * 4


def test_other_machines_and_other_work_have_histories_of_their_own():
    runs = days(5, 6)
    runs[0]["machine"] = {**runs[0]["machine"], "cpu": "another"}
    runs[1]["workload"] = {**runs[1]["workload"], "engine": "compile"}
    runs[2]["workload"] = {**runs[2]["workload"], "label": "renamed"}
    assert [len(found.points) for found in histories(runs)] == [4, 1, 1]


def test_the_page_marks_the_change_on_a_line_of_medians():
    told = history(days(1, slower={"decode": 1.1})).to_json()
    assert "decode" in changed_phases(told)
    figure = history_line(told, "decode")
    assert len(figure.data[-1].x) == 20
    assert [shape.x0 for shape in figure.layout.shapes] == ["2026-10-11T10:00:00+00:00"]
    page = history_report(told)
    assert "From day-10 on" in page
    assert "commit aaaaaaaaaaaa" in page


def test_the_command_writes_a_page_a_workload(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    store, pages = RunStore(tmp_path / "runs"), tmp_path / "pages"
    for run in days(1, slower={"decode": 1.1}):
        store.write(run)
    assert main(["history", "--out", str(store.root), "--json", "--html", str(pages)]) == 1
    (told,) = json.loads(capsys.readouterr().out)["histories"]
    assert told["changes"][0]["between"] == ["day-09", "day-10"]
    assert [page.name for page in pages.iterdir()] == ["history-1.html"]
    assert main(["history", "--out", str(store.root)]) == 1
    assert "From day-10 on" in capsys.readouterr().out
    assert main(["history", "--out", str(tmp_path / "none")]) == 2
