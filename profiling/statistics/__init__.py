"""Runs -> ratios with intervals, verdicts, agreement of texts."""
