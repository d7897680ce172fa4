"""Error rate, speed and memory of variants of a model over recordings whose text is known."""
