"""The benchmarks of verdicts: sessions cut out of a recording, and a phase that is made slower.

Run alone: ``python -m pytest tests/test_verdict_benchmarks.py``.
"""

import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.studies.resampled import dealt, judge
from benchmarks.studies.verdicts import slowed
from core.engine.stages import eager_engine
from profiling.measure.timing import END_TO_END, Arm, interleave
from tiny_models import random_model, raw_config


def test_runs_are_dealt_as_interleaving_would_have_run_them():
    order: list[str] = []

    def arm(name: str) -> Arm[SimpleNamespace]:
        return Arm(name, lambda: order.append(name) or SimpleNamespace(end_to_end_ms=1.0))

    interleave([arm("0"), arm("1"), arm("2")], 4)
    found = dealt(np.arange(5.0, 40.0), 2, 4)  # runs numbered from 5, begun at the third
    for number, name in enumerate(order):
        assert 7.0 + number in found[int(name), number // 6]


def test_a_slower_phase_is_found_in_quiet_recordings_and_not_in_noisy_ones():
    random = np.random.default_rng(0)
    found = {}
    for noise in (0.01, 0.5):
        decode = 10 * np.exp(random.normal(0, noise, 400))
        found[noise] = judge({"decode": decode, END_TO_END: 20 + decode}, "decode", 12, 20)
    assert {row["found"] for row in found[0.01].values()} == {1.0}
    assert all(row["found"] < 0.5 for row in found[0.5].values())
    for way in (*found[0.01].values(), *found[0.5].values()):
        assert way["decode told apart"] <= 0.1
        assert way["end to end told apart"] <= 0.1


def test_interruptions_hide_a_slower_phase_from_the_middle_of_two_and_not_from_the_quicker():
    random = np.random.default_rng(0)
    decode = 10 * np.exp(random.normal(0, 0.01, 1000) + 0.4 * (random.random(1000) < 0.1))
    found = judge({"decode": decode, END_TO_END: 20 + decode}, "decode", 12, 30)
    assert found["quicker of two, floor: ratio"]["found"] > 0.8
    assert found["middle of two, floor: interval"]["found"] < 0.3


def test_a_recording_too_short_for_a_session_is_refused():
    with pytest.raises(ValueError, match="100 runs were recorded; 20 blocks need more than 120"):
        judge({"decode": np.ones(100), END_TO_END: np.ones(100)}, "decode", 20, 5)


def test_a_slowed_stage_gives_the_same_and_takes_longer():
    calls: list[int] = []
    engine = replace(
        eager_engine(random_model(raw_config())),
        decode=lambda number: calls.append(number) or number + 1,
    )
    slow = slowed(engine, "decode", 0.05)
    assert slow.encode is engine.encode
    begin = time.perf_counter()
    assert slow.decode(1) == 2
    assert time.perf_counter() - begin >= 0.05
    assert calls == [1]
