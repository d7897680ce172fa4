"""One's own recordings -> an adapter."""
