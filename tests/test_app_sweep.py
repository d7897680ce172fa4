"""A sweep on the page: what is chosen, refused, measured and gone on with; measuring is a stub.

Run alone: ``python -m pytest tests/test_app_sweep.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import profiling.runs.sweep as sweeps
from app.components.sweep_panel import chosen
from app.service.limits import Limits
from app.service.measurement import MeasurementService
from app.service.profiles.library import MOST_OWN, ProfileLibrary
from app.service.profiles.sweep import MOST_RUNS, SweepChoices, SweepService, SweepUpdate
from app.service.service import TranscriptionService
from app.wording import sweep as words
from app_stubs import StubLab
from core.checkpoint.catalog import ASSETS
from core.errors import UserError
from many_runs import made_run
from profiling.measure.timing import Cancelled
from profiling.measure.workload import Workload
from profiling.report.columns import RUN_COLUMNS
from profiling.runs.store import RunStore

CLIP = str(ASSETS / "examples" / "digit_five.flac")
CHOICES = SweepChoices(
    model="tiny",
    engines=["eager"],
    adapters=[None, False],
    decodings=["greedy"],
    formats=[""],
    lengths_s=[1.0, 2.0],
    batches=[1, 2],
)


class MeasurableLab(StubLab):
    """Can do all but beams."""

    quantize = None

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.device, self.dtype = torch.device("cpu"), torch.float32  # type: ignore[assignment]

    def check(self, **options: Any) -> None:
        if options["decoding"] == "beam":
            raise UserError("no beams <b>here</b>")

    def longest_pass_s(self, **_: Any) -> float:
        return 1.5


class Measuring:
    """Stands for ``measure``: stores a run for each workload, and remembers the sessions."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sessions: list[list[Workload]] = []
        self.stop_at = 99
        self.number = 0
        monkeypatch.setattr(sweeps, "measure", self)
        monkeypatch.setattr(sweeps, "describe_machine", lambda device: made_run(0)["machine"])

    def __call__(
        self,
        labs: Sequence[Any],
        workloads: Sequence[Workload],
        store: RunStore,
        settings: Any,
        *,
        progress: Any,
        cancelled: Any,
    ) -> list[str]:
        if len(self.sessions) == self.stop_at:
            raise Cancelled
        self.sessions.append(list(workloads))
        progress(0.5, "run 1 of 2")
        ids = []
        for workload in workloads:
            run = made_run(self.number) | {"workload": workload.to_json()}
            run |= {"id": f"run-{self.number}", "session": f"session-{len(self.sessions)}"}
            ids.append(store.write(run))
            self.number += 1
        return ids


@pytest.fixture
def measuring(monkeypatch: pytest.MonkeyPatch) -> Measuring:
    return Measuring(monkeypatch)


def service(kept: Path | None, **more: Any) -> SweepService:
    models = TranscriptionService(
        loader=lambda name, **_: MeasurableLab(name),  # type: ignore[arg-type,return-value]
        **more,
    )
    return SweepService(MeasurementService(models, ProfileLibrary(kept)))


def run(sweeping: SweepService, choices: SweepChoices = CHOICES) -> list[SweepUpdate]:
    sweeping.service.begin("me:measure")
    return [one for one in sweeping.sweep("me", CLIP, choices) if isinstance(one, SweepUpdate)]


def test_every_combination_is_measured_once_and_what_cannot_run_is_told(
    measuring: Measuring, tmp_path: Path
) -> None:
    sweeping = service(tmp_path)
    *before, end = run(sweeping, replace(CHOICES, decodings=["greedy", "beam"]))
    assert [[(w.clip.seconds, w.batch) for w in works] for works in measuring.sessions] == [
        [(1.0, 1)] * 2,
        [(1.0, 2)] * 2,
        [(2.0, 1)] * 2,
    ]
    assert end.over
    assert len(end.rows) == 6
    assert max(len(one.rows) for one in before) > 0
    shares = [one.share for one in before]
    assert shares == sorted(shares)
    too_long = [note for note in end.notes if "at most 2 s, or a batch of 1" in note]
    assert len(too_long) == 2  # 2 s, cut into parts of 1.5 s
    assert sum("no beams" in note for note in end.notes) == 8
    html = words.state_html(end) + words.table_html(end)
    assert "<b>here" not in html
    assert html.count("<td>the first</td>") + html.count(">the first<") >= 3
    again = run(sweeping, replace(CHOICES, decodings=["greedy", "beam"]))
    assert len(measuring.sessions) == 3
    assert [row["id"] for row in again[-1].rows] == [row["id"] for row in end.rows]


def test_a_stopped_sweep_keeps_what_was_over_and_goes_on(
    measuring: Measuring, tmp_path: Path
) -> None:
    sweeping, measuring.stop_at = service(tmp_path), 1
    end = run(sweeping)[-1]
    assert len(end.rows) == 2
    assert "1 s, batch of 2: stopped before it was over" in end.notes
    measuring.stop_at = 99
    assert len(run(sweeping)[-1].rows) == 6
    assert len(measuring.sessions) == 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"engines": []}, "a row has nothing chosen"),
        ({"batches": [0]}, "a batch is 1 to 64"),
        ({"lengths_s": [0.0]}, "more than 0 seconds"),
        ({"lengths_s": [121.0]}, "at most 120 s"),
        ({"lengths_s": list(range(1, MOST_RUNS + 1))}, "expected at most 48 on this page"),
        ({"blocks": 99}, "99 blocks came"),
        ({"engines": ["fast"]}, "fast"),
    ],
)
def test_wrong_choices_are_sentences(
    measuring: Measuring, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        run(service(tmp_path), replace(CHOICES, **changes))
    assert not measuring.sessions


def test_a_visitor_of_a_page_that_keeps_no_runs_has_room_for_a_few(measuring: Measuring) -> None:
    sweeping = service(None, limits=Limits(no_compile="no compiler"))
    with pytest.raises(UserError, match=f"at most {MOST_OWN} on this page"):
        run(sweeping, replace(CHOICES, lengths_s=[1.0, 1.1, 1.2, 1.3]))
    with pytest.raises(UserError, match="no compiler"):
        run(sweeping, replace(CHOICES, engines=["compile"], lengths_s=[1.0]))
    assert len(run(sweeping, replace(CHOICES, batches=[1]))[-1].rows) == 4


def test_the_fields_say_what_to_combine() -> None:
    found = chosen("tiny", ["eager"], ["on", "off"], ["greedy"], ["", "int8"], "3, 10", "1 8", 6)
    assert (found.lengths_s, found.batches) == ([3.0, 10.0], [1, 8])
    assert found.adapters == [None, False]
    assert found.num_runs == 16
    assert chosen("tiny", ["eager"], ["on"], ["greedy"], [""], "", "", 6).num_runs == 1
    for lengths, batches in (("three", "1"), ("3", "one"), ("3", "1.5")):
        with pytest.raises(UserError, match="expected"):
            chosen("tiny", ["eager"], ["on"], ["greedy"], [""], lengths, batches, 6)


def test_the_table_names_columns_that_there_are() -> None:
    assert set(words.NOT_IN_TABLE) < set(RUN_COLUMNS)
