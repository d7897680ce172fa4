"""Our engine beside transformers, in one run: what is claimed about speed, measured again."""
