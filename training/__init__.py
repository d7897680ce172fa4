"""Training of the bundled checkpoint: corpus, encoder, decoder, alignment, pack, evaluation."""
