"""How good, how fast and how heavy: variants of a model over recordings whose text is known."""
