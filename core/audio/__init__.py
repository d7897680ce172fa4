"""A recording -> a mono 16 kHz waveform, and where speech is in it. Knows no model."""
