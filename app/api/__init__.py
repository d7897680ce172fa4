"""What other programs may call."""
