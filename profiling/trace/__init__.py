"""A trace file -> a frame of events -> tables."""
