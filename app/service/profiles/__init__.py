"""Recorded runs and traces a visitor may look at: which there are, read, laid open."""
