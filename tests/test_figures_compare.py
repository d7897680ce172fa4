"""Figures of two runs by their data: side by side, ratios, what compiling pays back.

Run alone: ``python -m pytest tests/test_figures_compare.py``.
"""

from __future__ import annotations

import numpy as np
import pytest

from figure_inputs import COMPARISON
from profiling.figures.comparison import break_even_lines, comparison_bars, ratio_intervals


def test_two_runs_stand_side_by_side_and_a_missing_phase_stays_empty() -> None:
    a, b = comparison_bars(COMPARISON).data
    assert (a.name, b.name) == ("A", "B")
    assert list(a.y) == list(b.y) == ["encoder", "decode"]
    assert list(a.x) == [6.0, 12.0]
    assert list(b.x) == [None, 4.0]


def test_ratios_have_intervals_a_noise_band_and_leave_out_what_is_not_in_both() -> None:
    band, dots = ratio_intervals(COMPARISON).data
    assert list(band.x) == [0.97, 1.03]
    assert list(dots.y) == ["decode", "end to end"]
    assert list(dots.error_x.array) == pytest.approx([0.07, 0.05])
    assert list(dots.error_x.arrayminus) == pytest.approx([0.03, 0.05])


def test_lines_cross_where_compiling_has_paid() -> None:
    a, b = break_even_lines(COMPARISON).data
    at = np.interp(1000, a.x, a.y), np.interp(1000, b.x, b.y)
    assert at[0] == pytest.approx(at[1])
