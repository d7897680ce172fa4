"""The roofline: what a phase needs at least against the machine's peak rates."""
