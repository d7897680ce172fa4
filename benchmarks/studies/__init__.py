"""Experiments that answered one question each; `python -m benchmarks NAME` runs one again."""
