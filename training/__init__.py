"""How the bundled checkpoint is made: corpus, encoder, decoder, alignment, pack, evaluation."""
