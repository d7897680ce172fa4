"""Routes for other programs."""
