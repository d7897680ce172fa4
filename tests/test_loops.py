"""Finding repetition: where it begins, and what is not one."""

import pytest

from core.generation.repetition import MIN_TOKENS, length_before_loop


@pytest.mark.parametrize("period", [1, 2, 3, 7, 24])
def test_a_loop_is_cut_to_one_round(period: int) -> None:
    start, round_ = list(range(100, 110)), list(range(period))
    ids = start + round_ * (max(MIN_TOKENS // period, 4) + 1)
    keep = length_before_loop(ids)
    assert keep is not None
    assert ids[:keep] == start + round_


def test_text_that_does_not_repeat_is_no_loop() -> None:
    assert length_before_loop(list(range(200))) is None


def test_a_number_said_several_times_is_no_loop() -> None:
    assert length_before_loop([5] * 12) is None
    assert length_before_loop([1, 2, 3] * 5) is None


def test_a_loop_that_ended_is_none() -> None:
    assert length_before_loop([1, 2] * 40 + list(range(50, 60))) is None


def test_nothing_is_no_loop() -> None:
    assert length_before_loop([]) is None
