"""Recorded runs: made, written, read, listed, packed."""
