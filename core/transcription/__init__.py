"""One request: options in, events and a transcript out."""
