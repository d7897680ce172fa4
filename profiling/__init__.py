"""Measurement: what a run cost, as tables and figures. Imports :mod:`core`, never the app."""
