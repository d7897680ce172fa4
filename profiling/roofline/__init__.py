"""What a phase needs at least, and what this machine can do at most."""
